"""Check that a machine can run the accelerator's benchmarks: `python benchmarks/accelerator_check.py [--quick]`.

Exits with a message if packages are missing, JAX or PyTorch finds no accelerator, or the methods of a layer disagree.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="accept a CPU")
    options = parser.parse_args()
    if missing := find_missing():
        names = " ".join(missing)
        sys.exit(
            f"accelerator.sh: {', '.join(missing)} are not installed. With a network: pip install -c constraints.txt "
            f"{names}. Without: where there is one, run `bash benchmarks/accelerator.sh --wheels build/wheels`, and "
            "bring the folder."
        )
    import jax

    # What a training imports; this names whatever else is missing.
    import fcn_jax.cli.train
    import fcn_jax.data.builder
    import fcn_jax.training.loop  # noqa: F401

    print("jax", jax.__version__, jax.devices())
    if jax.default_backend() == "cpu" and not options.quick:
        sys.exit("accelerator.sh: JAX finds no accelerator; install its build, such as jax[cuda12]")
    check_methods()
    if importlib.util.find_spec("torch"):
        import torch

        print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
        if jax.default_backend() == "gpu" and not torch.cuda.is_available():
            sys.exit("accelerator.sh: JAX finds a GPU and PyTorch does not; install its build for CUDA")


def find_missing() -> list[str]:
    """List the dependencies of the project that are not installed."""
    installed = {_normalize(distribution.name) for distribution in importlib.metadata.distributions()}
    lines = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    names = [re.match(r"[\w-]+", line)[0] for line in lines]
    return [name for name in names if _normalize(name) not in installed]


def check_methods() -> None:
    """Compare the methods of upsampling and pooling, with gradients, with XLA's own operations."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from fcn_jax.layers import conv_transpose, max_pool

    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 16, 16, 21), (16, 16, 21, 21)))
    layers = {
        "conv_transpose": (
            ("matmul", "conv", "rows", None),
            lambda x, method: conv_transpose(x, kernel, 8, 4, method=method),
        ),
        "max_pool": ((None,), lambda x, method: max_pool(x, 2, 2, method=method)),
    }
    for name, (methods, layer) in layers.items():

        def run(x, method, layer=layer):
            y, back = jax.vjp(lambda x: layer(x, method), x)
            return y, back(y)[0]

        compiled = jax.jit(run, static_argnames="method")
        expected = compiled(x, "plain")
        for method in methods:
            for found, plain in zip(compiled(x, method), expected, strict=True):
                error = float(abs(found - plain).max() / abs(plain).max())
                # GPUs multiply float32 in TF32, which has ten bits behind the point.
                if not error < 0.01:
                    sys.exit(f"accelerator.sh: {name} differs by {error:.2g} between the methods {method} and plain")


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
