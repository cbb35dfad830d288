"""Batch normalization with the constants of torchvision's networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

MOMENTUM = 0.9  # share of the running statistics that an update keeps; PyTorch's momentum is the other share, 0.1
EPSILON = 1e-5


def configure_norm(
    norm: Callable[..., Any], batch_statistics: bool, dtype: Any, epsilon: float = EPSILON
) -> Callable[..., Any]:
    """Set the arguments that are the same for all normalizations of a network.

    Args:
        norm: `fcn_jax.layers.BatchNorm`, `nn.BatchNorm`, or a module with the same arguments.
        batch_statistics: whether to normalize by the statistics of the batch and update the running ones.
        dtype: dtype of the results.
        epsilon: added to the variance.

    Returns:
        `norm`, to be called with a name and, where it differs from ones, `scale_init`.
    """
    return partial(norm, use_running_average=not batch_statistics, momentum=MOMENTUM, epsilon=epsilon, dtype=dtype)
