"""The code that a computation depends on: this package's, and the versions of others."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1]  # of this package
# Other versions of these may change the numbers of a training.
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def read_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the installed version of each package by its name."""
    return {name: importlib.metadata.version(name) for name in packages}


def list_code() -> list[Path]:
    """List the source files of this package, sorted. Without its sources, as in an archive, there are none."""
    return sorted(FOLDER.rglob("*.py"))


def hash_code() -> str:
    """Hash the names and contents of this package's source files, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in list_code():
        digest.update(f"{file.relative_to(FOLDER)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
