"""Versions of the packages that a computation depends on."""

import importlib.metadata
from collections.abc import Sequence

# Other versions of these may change the numbers of a training.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def read_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the installed version of each package by its name."""
    return {name: importlib.metadata.version(name) for name in packages}
