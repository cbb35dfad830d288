"""Flags for XLA that let tests compile in a fifth of the time."""

# Most of the suite's time is compilation: LLVM's optimisation, and an MLIR pipeline for each fusion. Both are left out.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
