"""Batch normalization that is fast on CPUs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from .channel_sums import broadcast_channels, channel_sums, choose_method
from .sizes import read_array


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last (Ioffe & Szegedy 2015).

    The variables are those of `nn.BatchNorm`, and so are the results up to rounding, with the same momentum (Flax's
    default is 0.99). Under `jit` the batch is the
    global one, over all devices.

    Attributes:
        use_running_average: True normalizes by the running statistics and keeps them. False normalizes by the
            statistics of the batch and updates the running ones. Scale and bias are parameters in both cases.
        momentum: share of the running statistics that an update keeps; 1 minus PyTorch's momentum.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        dtype: dtype of the result. Parameters and statistics are float32; the computation is at least float32.
        method: method of the per-channel sums and broadcasts; see `channel_sums`.

    Raises:
        ValueError: the input is not floating point or has no channel, there is no cell to take statistics of, or the
            method is unknown.

    Examples:
        >>> norm = BatchNorm(use_running_average=False)
        >>> variables = norm.init(jax.random.key(0), jnp.ones((4, 1)))
        >>> y, updates = norm.apply(variables, jnp.array([[1.0], [3.0]]), mutable=["batch_stats"])
        >>> y.round(3)[:, 0].tolist(), updates["batch_stats"]["mean"].round(3).tolist()
        ([-1.0, 1.0], [0.20000000298023224])
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = jnp.float32
    method: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array | np.ndarray) -> jax.Array:
        """Normalize each channel of ``[*cells, channels]``.

        Without running statistics the collection "batch_stats" has to be mutable.
        """
        x = read_array(x, "x", "[*cells, channels]")
        is_empty = 0 in (x.shape[-1:] if self.use_running_average else x.shape)
        if x.ndim < 1 or is_empty or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"x is {x.dtype}{list(x.shape)}; it must be floating point, [*cells, channels], with at least one "
                "channel and, without running statistics, at least one cell."
            )
        x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = jnp.asarray(self.param("scale", self.scale_init, channels, jnp.float32))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, channels, jnp.float32))
        method = choose_method(self.method)  # here, because `plain_methods` is no part of what `jit` goes by
        if self.use_running_average:
            mean, variance = jnp.asarray(running_mean.value), jnp.asarray(running_variance.value)
        else:
            mean, variance = _compute_moments(x, method)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_variance, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new.astype(jnp.float32)
        mean, variance, scale, bias = (v.astype(x.dtype) for v in (mean, variance, scale, bias))
        return _normalize(x, mean, variance, scale, bias, self.epsilon, method).astype(self.dtype)


# Both functions are under `jit` so that they are traced once for all layers of one shape.
@partial(jax.jit, static_argnames="method")
def _compute_moments(x: jax.Array, method: str) -> tuple[jax.Array, jax.Array]:
    count = float(x.size // x.shape[-1])  # an integer could need more than 32 bits
    mean = channel_sums(x, method) / count
    return mean, jnp.maximum(channel_sums(x * x, method) / count - mean * mean, 0.0)


@partial(jax.jit, static_argnames=("epsilon", "method"))
def _normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    method: str,
) -> jax.Array:
    factor = scale * lax.rsqrt(variance + epsilon)
    # (x - mean) * factor + bias. The mean's gradient is computed from the bias's, whose sum is needed anyway.
    centre = lax.stop_gradient(mean)
    shift = bias - (mean - centre) * factor
    broadcast = partial(broadcast_channels, shape=x.shape, method=method)
    return (x - broadcast(centre)) * broadcast(factor) + broadcast(shift)
