"""Batch normalisation as torchvision has it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from fcn_jax.layers.channel_sums import spread, total


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015), `nn.BatchNorm` made for CPUs as well.

    Variables and, up to rounding, results are those of Flax's module; under `jit` the batch is the global one.

    Attributes:
        use_running_average: normalise by the running statistics, which stay; False: by those of the batch, and update
            the running ones. Scale and bias are parameters in both cases, and learned.
        momentum: share of the running statistics that an update keeps; 1 - PyTorch's.
        epsilon: added to the variance.
        scale_init: of the scale.
        dtype: of the result; parameters are float32, the computation at least.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[ArrayLike, "*cells channels"]) -> Float[Array, "*cells channels"]:
        """Normalises each channel; with batch statistics `batch_stats` has to be mutable."""
        x = jnp.asarray(x)
        x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = jnp.asarray(self.param("scale", self.scale_init, channels))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, channels))
        if self.use_running_average:
            mean, variance = jnp.asarray(running_mean.value), jnp.asarray(running_variance.value)
        else:
            mean, variance = _moments(x)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_variance.value = keep * running_variance.value + (1 - keep) * variance
        return _normalise(x, mean, variance, scale, bias, self.epsilon).astype(self.dtype)


# Both are traced once for all layers of one shape.
@jax.jit
def _moments(x: Array) -> tuple[Array, Array]:
    count = float(x.size // x.shape[-1])  # as an integer it could be beyond 32 bits
    mean = total(x) / count
    return mean, jnp.maximum(total(x * x) / count - mean * mean, 0.0)


@partial(jax.jit, static_argnames="epsilon")
def _normalise(x: Array, mean: Array, variance: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    factor = scale * lax.rsqrt(variance + epsilon)
    # (x - mean) factor + bias. The gradient by the mean goes by way of the bias, whose sum is there in any case.
    centre = lax.stop_gradient(mean)
    shift = bias - (mean - centre) * factor
    return (x - spread(centre, x.shape)) * spread(factor, x.shape) + spread(shift, x.shape)


def batch_norm(batch_statistics: bool, dtype: Any) -> partial[BatchNorm]:
    """BatchNorm with torchvision's constants (momentum 0.1 there is 0.9 here).

    Args:
        batch_statistics: see `BatchNorm.use_running_average`.
        dtype: of the result.
    """
    return partial(BatchNorm, use_running_average=not batch_statistics, dtype=dtype)
