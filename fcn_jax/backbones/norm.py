"""Batch normalisation as torchvision has it."""

from functools import partial
from typing import Any

from flax import linen as nn


def batch_norm(batch_statistics: bool, dtype: Any) -> partial[nn.BatchNorm]:
    """BatchNorm with torchvision's constants (momentum 0.1 there is 0.9 here); under `jit` over the global batch.

    Args:
        batch_statistics: normalise by those of the batch and update the running ones; False: by the running ones, which
            stay. Scale and bias are parameters in both cases, and learned.
        dtype: of the computation; parameters and statistics are float32.
    """
    return partial(nn.BatchNorm, use_running_average=not batch_statistics, momentum=0.9, epsilon=1e-5, dtype=dtype)
