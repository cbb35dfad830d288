"""Fully Convolutional Networks for semantic segmentation in JAX and Flax (Long, Shelhamer & Darrell 2015)."""

import importlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcn_jax.inference.segmenter import Segmenter
    from fcn_jax.models.dilated import DilatedFCN
    from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s

__all__ = ["FCN", "DilatedFCN", "FCN8s", "FCN16s", "FCN32s", "Segmenter"]
__version__ = "0.1.0"
IMPORTED = time.time()  # files of the package that changed since then are not what runs


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `fcn-jax --help` does not wait for JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    match name:
        case "Segmenter":
            module = "fcn_jax.inference.segmenter"
        case "DilatedFCN":
            module = "fcn_jax.models.dilated"
        case _:
            module = "fcn_jax.models.fcn"
    return getattr(importlib.import_module(module), name)
