"""Dense scores from a classifier: dense layers as convolutions, and shift-and-stitch."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .depth_to_space import depth_to_space
from .sizes import Array, ArrayLike, Ints, are_known, read_array, read_ints, reshape


def convolutionalize(kernel: ArrayLike, window: Ints, order: str = "hwc") -> Array:
    """Convert the weights of a dense layer to a convolution's kernel.

    A dense layer over a flattened ``[h, w, in]`` feature map is a convolution whose window fits once. On a larger map
    the window fits many times, and a classifier becomes a network that gives a map of scores (Long, Shelhamer &
    Darrell 2015, section 3.1).

    Args:
        kernel: ``[h * w * in, out]``, as in Flax. Weights of PyTorch and Caffe, ``[out, in * h * w]``, need ``.T``.
        window: (h, w) of the feature map, or one integer for both.
        order: how the map was flattened: "hwc" in Flax, "chw" in PyTorch and Caffe.

    Returns:
        ``[h, w, in, out]``, for a convolution with padding 0.

    Raises:
        ValueError: the weights do not fit the window, or the order is unknown.

    Examples:
        >>> convolutionalize(jnp.zeros((25088, 10)), 7, "chw").shape
        (7, 7, 512, 10)
    """
    kernel = read_array(kernel, "kernel", "[h * w * in, out]")
    height, width = read_ints(window, 2, "window", 1)
    if kernel.ndim != 2 or kernel.shape[0] % (height * width):
        raise ValueError(
            f"the kernel has the shape {kernel.shape}; for the window {(height, width)} it must be [in, out] with in a "
            f"multiple of {height * width}."
        )
    if order == "hwc":
        return kernel.reshape(height, width, -1, kernel.shape[1])
    if order == "chw":
        return kernel.reshape(-1, height, width, kernel.shape[1]).transpose(1, 2, 0, 3)
    raise ValueError(f"order is {order!r}; it must be 'hwc' (Flax) or 'chw' (PyTorch, Caffe).")


def shift_and_stitch(net: Callable[[Array], Array], x: ArrayLike, stride: Ints) -> Array:
    """Compute dense predictions of a coarse network from shifted inputs.

    The network runs once for each shift of the input down and right by less than the stride, and its results are
    interlaced (Long, Shelhamer & Darrell 2015, section 3.2). For a network without padding this equals removing
    its last stride and dilating its later filters (à trous). It costs ``stride ** 2`` passes, which run one after the
    other.

    Args:
        net: function from ``[*batch, h, w, in]`` to ``[*batch, h', w', out]``, of total stride `stride`.
        x: ``[*batch, height, width, in]``.
        stride: the network's total stride, one for both axes or one per axis.

    Returns:
        ``[*batch, h' * stride, w' * stride, out]``, where h', w' is the size of ``net(x)``. Position 0 is the first
        cell of ``net(x)``. At the last ``stride - 1`` positions, behind the last cell, the network may see zeros beyond
        the input.

    Raises:
        ValueError: the input has no known height and width, or the network's size does not follow the stride.

    Examples:
        >>> halve = lambda x: max_pool(x, 2)
        >>> x = jnp.array([[1.0, 5.0, 2.0, 4.0]] * 2)[:, :, None]
        >>> shift_and_stitch(halve, x, 2)[0, :, 0].tolist()
        [5.0, 5.0, 4.0, 4.0]
    """
    x = read_array(x, "x", "[*batch, height, width, in]")
    strides = read_ints(stride, 2, "stride", 1)
    if x.ndim < 3 or not are_known(x.shape[-3:-1]):
        raise ValueError(
            f"x has the shape {x.shape}; it must be [*batch, height, width, channel], with numbers of at least 1 as "
            "height and width."
        )
    batch, (height, width, channels) = x.shape[:-3], x.shape[-3:]
    # A shift by s - 1 - i needs zeros in front. The zeros behind make the network's map one cell larger.
    border = [(0, 0, 0)] * len(batch) + [(s - 1, s, 0) for s in strides] + [(0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), border)

    def run_shifted(shift: Array) -> Array:
        start = (*(0,) * len(batch), shift[0], shift[1], 0)
        return net(lax.dynamic_slice(padded, start, (*batch, height + strides[0], width + strides[1], channels)))

    cells = getattr(jax.eval_shape(net, x), "shape", ())[-3:-1]
    if len(cells) != 2:
        raise ValueError(f"the net gives {jax.eval_shape(net, x)}; it must give one array [*batch, h', w', out].")
    shifts = np.array(list(np.ndindex(*strides)), np.int32)
    maps = lax.map(run_shifted, jnp.asarray(shifts))
    if maps.shape[-3:-1] != (cells[0] + 1, cells[1] + 1):
        raise ValueError(
            f"the net gives {cells} cells for the input {x.shape} and {maps.shape[-3:-1]} for one that is a stride of "
            f"{strides} larger; the second must be one more, so give the net's total stride."
        )
    # maps[sw * i + j] holds the positions stride * cell - (stride - 1 - i). Interlaced they start at -(stride - 1).
    maps = jnp.moveaxis(maps, 0, -2)
    dense = depth_to_space(reshape(maps, *maps.shape[:-2], math.prod(maps.shape[-2:])), strides)
    rows, columns = (slice(s - 1, s - 1 + s * n) for s, n in zip(strides, cells, strict=True))
    return dense[..., rows, columns, :]
