"""Depth to space: blocks of channels moved into space, also known as pixel shuffle."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from .backend import is_cpu
from .sizes import Array, ArrayLike, Ints, check_method, count_axes, read_array, read_ints, reshape

_METHODS = ("plain", "split")

# On CPUs "split" is used up to this number of rows per block, and "plain" above. Each is the faster of the two in its
# range, as measured on two AVX2 cores.
_MOST_SPLIT_ROWS = 4


def depth_to_space(x: ArrayLike, block: Ints, *, method: str | None = None) -> Array:
    """Move blocks of channels into space: ``[*batch, h, w, bh * bw * c]`` to ``[*batch, h * bh, w * bw, c]``.

    Channel ``(i * bw + j) * c + k`` of cell (y, x) moves to channel k of position (y * bh + i, x * bw + j).

    Args:
        x: ``[*batch, *spatial, channels]``.
        block: the factor of each spatial axis; one integer means two axes.
        method: "plain" transposes, and so does its gradient. "split" has another gradient, which splits the channels.
            It needs two spatial axes and is faster on XLA's CPU backend if the phases are few. None chooses "split" on
            CPUs for two axes and blocks of up to 4 rows, otherwise "plain".

    Raises:
        ValueError: the channels are not a multiple of the block, the axes are too few, the block is not made of
            integers, or the method is unknown or needs two spatial axes.

    Examples:
        >>> depth_to_space(jnp.arange(4).reshape(1, 1, 4), 2)[:, :, 0].tolist()
        [[0, 1], [2, 3]]
    """
    x = read_array(x, "x", "[*batch, *spatial, channels]")
    axes = count_axes(block, 2)
    block = read_ints(block, axes, "block", 1)
    if x.ndim < axes + 1 or x.shape[-1] % math.prod(block):
        raise ValueError(
            f"x has the shape {x.shape}; for the block {block} it needs {axes} spatial axes and a number of channels "
            f"that is a multiple of {math.prod(block)}."
        )
    if method is None:
        method = "split" if is_cpu() and axes == 2 and block[0] <= _MOST_SPLIT_ROWS else "plain"
    check_method(method, _METHODS)
    if method == "plain":
        return _transpose(x, block)
    if axes != 2:
        raise ValueError(f"method 'split' needs two spatial axes and block is {block}; give method=None or 'plain'.")
    return _split(x, block)


def _transpose(x: Array, block: tuple[int, ...]) -> Array:
    axes = len(block)
    batch, spatial = x.shape[: -axes - 1], x.shape[-axes - 1 : -1]
    x = reshape(x, *batch, *spatial, *block, x.shape[-1] // math.prod(block))
    first = len(batch)
    interleaved = [first + axis + half for axis in range(axes) for half in (0, axes)]
    x = x.transpose(*range(first), *interleaved, x.ndim - 1)
    return reshape(x, *batch, *(n * b for n, b in zip(spatial, block, strict=True)), x.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _split(x: Array, block: tuple[int, ...]) -> Array:
    return _transpose(x, block)


@_split.defjvp
def _split_jvp(block, primals, tangents):
    # The operation is linear. The tangent splits the channels into rows and concatenates them, because the transpose of
    # that, the gradient, is fast. If the phases are few, XLA's CPU backend moves slices faster than single lines.
    x = tangents[0]
    *batch, height, width, channels = x.shape
    rows = lax.split(x, (channels // block[0],) * block[0], axis=x.ndim - 1)
    rows = [reshape(row, *batch, height, 1, width * channels // block[0]) for row in rows]
    y = _split(primals[0], block)
    return y, reshape(jnp.concatenate(rows, axis=-2), *y.shape)
