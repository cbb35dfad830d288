"""Local response normalization of AlexNet and GoogLeNet."""

import jax
import jax.numpy as jnp


def local_response_norm(x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> jax.Array:
    """Normalize by neighbouring channels, as Caffe's LRN does.

    The result is x / (1 + alpha * m) ** beta, where m is the mean of the squares of the `size` nearest channels. Beyond
    the first and the last channel the squares are 0 and still count. Krizhevsky et al. 2012, section 3.3, have a sum in
    place of the mean. Numbers of 16 bits are computed in 32: the square of 256 is beyond float16.
    """
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    channels = x.shape[-1]
    reach = size // 2
    squares = jnp.pad(wide * wide, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    total = sum(jax.lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in range(size))
    return (wide * (1 + alpha / size * total) ** -beta).astype(x.dtype)
