"""Fully Convolutional Networks for semantic segmentation in JAX and Flax (Long, Shelhamer & Darrell 2015)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcn_jax.models.dilated import DilatedFCN
    from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s

__all__ = ["FCN", "DilatedFCN", "FCN8s", "FCN16s", "FCN32s"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports the networks when they are asked for: `fcn-jax --help` need not wait for JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module = importlib.import_module("fcn_jax.models.dilated" if name == "DilatedFCN" else "fcn_jax.models.fcn")
    return getattr(module, name)
