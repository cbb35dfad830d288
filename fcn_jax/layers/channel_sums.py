"""Numbers a channel: summed over all cells of a feature map, and given to all of them.

On CPUs XLA sums over leading axes in one thread, and number by number where it fuses: five times slower than the same
sum as a product with ones. JAX transposes each function into the other, so gradients are products as well.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def total(x: Float[Array, "*cells channels"]) -> Float[Array, " channels"]:
    """The sum over all axes but the last."""
    if jax.default_backend() != "cpu":
        return x.sum(tuple(range(x.ndim - 1)))
    x = x.reshape(-1, x.shape[-1])
    return (jnp.ones((1, len(x)), x.dtype) @ x)[0]


def spread(channels: Float[Array, " channels"], shape: tuple[int, ...]) -> Float[Array, "*cells channels"]:
    """`channels` broadcast to `shape`, whose last side is theirs."""
    if jax.default_backend() != "cpu":
        return jnp.broadcast_to(channels, shape)
    cells = math.prod(shape[:-1])
    return (jnp.ones((cells, 1), channels.dtype) @ channels[None]).reshape(shape)
