"""The machine's backend, its number of devices, and compiler options for its CPU programs.

The other modules use these functions instead of asking JAX.
"""

import contextlib
import contextvars
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import jax

# Options of XLA for programs with convolutions on CPUs. The first halves the time of many pixels, the others halve the
# memory; docs/performance.md has the figures.
_CPU_OPTIONS = {
    # YNNPACK computes gradients of kernels at a fifth of the forward rate or less; Eigen computes them at the forward
    # rate. An empty list of operations turns YNNPACK off.
    "xla_cpu_experimental_ynn_fusion_type": "",
    # This pass removes optimization barriers before operations are fused.
    "xla_disable_hlo_passes": "cse_barrier_expander",
    # Otherwise values that depend on parameters alone, such as transformed kernels, are computed first and kept.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
# With this preset a forward pass compiles in three quarters of the time and is as fast; a training step would be up to
# a tenth slower. Measured on two AVX2 cores.
_FORWARD_OPTIONS = {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}


_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_methods() -> Iterator[None]:
    """Let every operation that is traced inside choose its method "plain", as for a program of another machine.

    Examples:
        >>> with plain_methods():
        ...     program = jax.make_jaxpr(lambda x: max_pool(x, 2))(jnp.ones((1, 4, 4, 1)))
        >>> "reduce_window_max" in str(program)
        True
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def wants_plain() -> bool:
    """Return whether operations should choose their method "plain"."""
    return _plain.get()


def is_cpu() -> bool:
    """Return whether the program is for the CPUs on which JAX computes by default."""
    return jax.default_backend() == "cpu" and not wants_plain()


def is_tpu() -> bool:
    """Return whether the program is for the TPUs on which JAX computes by default."""
    return jax.default_backend() == "tpu" and not wants_plain()


def is_single_device() -> bool:
    """Return whether there is one device only, over all processes."""
    return count_devices() == 1


def count_devices() -> int:
    """Count the devices of all processes."""
    return jax.device_count()


def count_local_devices() -> int:
    """Count the devices of this process."""
    return jax.local_device_count()


def jit_options(training: bool = True) -> dict[str, Any]:
    """Choose the arguments of `jax.jit` with which programs of these layers are fast: `jax.jit(f, **jit_options())`.

    On CPUs they are the `compiler_options`. On GPUs and TPUs, and in `plain_methods`, there are none, so the line may
    stay in a program for any backend. They belong to the outermost `jax.jit`: JAX refuses to trace a function with
    compiler options inside another program, `jax.grad` and `jax.vmap` included.

    Without them XLA's library YNNPACK computes convolutions: gradients of many pixels take twice as long, those of few
    pixels (two images of 128²) may be faster. A training step needs up to twice the memory for its temporary values.

    Args:
        training: whether the program is a training step (True) or a forward pass alone (False).

    Returns:
        Keyword arguments by name; empty on accelerators.

    Examples:
        >>> double = jax.jit(lambda x: 2 * x, **jit_options())
        >>> float(double(1.5))
        3.0
    """
    options = compiler_options(training)
    return {"compiler_options": options} if options else {}


def compiler_options(training: bool = True) -> dict[str, str]:
    """Choose compiler options for a network, for programs that are not compiled by `jax.jit` alone.

    `jit_options` passes them to `jax.jit`; `jax.stages.Lowered.compile` takes them too. Options that XLA does not know
    are left out, with one warning.

    Args:
        training: whether the program is a training step (True) or a forward pass alone (False).

    Returns:
        Values by name; on accelerators an empty dictionary.

    Examples:
        >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options(training=False))
        >>> float(double(1.5))
        3.0
    """
    if not is_cpu():
        return {}
    known = _find_known_options()
    return {name: value for name, value in known.items() if not training or name in _CPU_OPTIONS}


@functools.cache
def _find_known_options() -> dict[str, str]:
    """Try all options on a small program, leave out those that XLA does not know, and warn about them."""
    options = _CPU_OPTIONS | _FORWARD_OPTIONS
    if _compiles_with(options):
        return options
    known: dict[str, str] = {}
    for name, value in options.items():
        if _compiles_with(known | {name: value}):
            known[name] = value
    unknown = ", ".join(name for name in options if name not in known)
    warnings.warn(
        f"XLA of jax {jax.__version__} does not know the compiler options {unknown}: programs are compiled with XLA's "
        "defaults in their place, which is slower on CPUs; install the version of jax that this code was tested with.",
        stacklevel=3,
    )
    return known


def _compiles_with(options: dict[str, str]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
