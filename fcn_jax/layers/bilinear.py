"""Bilinear upsampling: the filter, the initializer, and the fixed transposed convolution."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .backend import is_cpu, wants_plain
from .conv_transpose import conv_transpose
from .sizes import (
    Array,
    ArrayLike,
    Ints,
    Padding,
    are_positive,
    check_method,
    compute_output_sizes,
    count_axes,
    read_array,
    read_crops,
    read_ints,
    reshape,
)

# On CPUs phases are made one by one up to this stride, and by a matrix product above. Each is the faster of the two in
# its range, as measured on two AVX2 cores.
_MOST_PHASES = 8


def bilinear_kernel(size: Ints) -> np.ndarray:
    """Make the bilinear filter of one channel.

    It is the outer product of two tents ``1 - |j - centre| / factor`` with ``factor = (size + 1) // 2``. The tent of an
    even size 2s has its centre between two taps, that of an odd size 2s - 1 on a tap. At stride s copies of either add
    up to 1 everywhere, so a constant stays constant away from the border. Source: `upsample_filt` in ``surgery.py`` of
    the authors' FCN code.

    Args:
        size: kernel size, one for both axes or (height, width).

    Returns:
        float32[height, width].

    Raises:
        ValueError: a size below 1.

    Examples:
        >>> bilinear_kernel(4)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
        >>> bilinear_kernel((1, 3)).tolist()
        [[0.5, 1.0, 0.5]]
    """
    height, width = read_ints(size, 2, "size", 1)
    return np.outer(make_tent(height), make_tent(width)).astype(np.float32)


def make_tent(size: int) -> np.ndarray:
    """Make the bilinear filter of one axis, float64[size]; see `bilinear_kernel`."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


def bilinear_init(key: Array | None, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Initialize a transposed convolution's kernel as bilinear upsampling of every channel by itself.

    Output channel o gets the bilinear filter from input channel ``o % (in / groups)`` and zeros from the others. With
    as many outputs as inputs this is a diagonal matrix of filters. A depthwise kernel (in / groups = 1) has one filter
    per channel, a grouped kernel a diagonal within each group. Source: `interp` in ``surgery.py`` of the authors' FCN
    code.

    Args:
        key: not used; initializers of Flax take a key.
        shape: ``[*spatial, in / groups, out]``.
        dtype: dtype of the kernel.

    Raises:
        ValueError: the shape is not made of integers of at least 1, or the outputs are not a multiple of the inputs of
            a group.

    Examples:
        >>> bilinear_init(None, (4, 4, 2, 2))[1, 1].tolist()
        [[0.5625, 0.0], [0.0, 0.5625]]
    """
    del key
    shape = read_ints(shape, count_axes(shape, 1), "shape", 1)
    if len(shape) < 3 or shape[-1] % shape[-2]:
        raise ValueError(
            f"the kernel's shape is {tuple(shape)}; bilinear_init needs [*spatial, in / groups, out], outputs a "
            "multiple of the inputs of a group, for example as many scores out as in."
        )
    *size, ins, outs = shape
    tents = functools.reduce(np.multiply.outer, map(make_tent, size))
    same_channel = np.arange(ins)[:, None] == np.arange(outs) % ins
    return jnp.asarray(np.multiply.outer(tents, same_channel), dtype)


def upsample_bilinear(
    x: ArrayLike,
    stride: Ints,
    *,
    kernel_size: Ints | None = None,
    padding: Padding | None = None,
    method: str | None = None,
) -> Array:
    """Upsample every channel by the fixed bilinear transposed convolution.

    The result equals `ConvTranspose` without bias and with `bilinear_init`. The filter is separable, so columns are
    upsampled first and rows second; each output is a weighted mean of the inputs that reach it.

    **Alignment**, compared with ``jax.image.resize(..., "bilinear")`` (docs/upsampling.md has drawings):

    - Kernel 2s, padding s / 2 (the default for even s): cell i has its centre at ``s * i + (s - 1) / 2``, as if pixels
      were little squares. The result equals `jax.image.resize`, except within s / 2 of the border: there the sum fades
      to the zeros outside, while `resize` repeats the last value.
    - Kernel 2s - 1, padding s - 1: cell i lies on output ``s * i`` and the size is ``s * (n - 1) + 1``. The first and
      the last cell lie on the corners ("align corners", `jax.image.scale_and_translate` with scale s and translation
      ``(1 - s) / 2``), and nothing fades. Use it for a network whose cells lie there, such as a ResNet.
    - Odd s with the default kernel 2s - 1 and padding (s - 1) / 2: an odd kernel with the centres of the first kind;
      the result equals `jax.image.resize` to the same extent.

    **Method.** The fast forms differ in how they add up the inputs of one stride's outputs: ``"phases"`` makes every
    phase by itself, ``"product"`` makes all phases by one small matrix product, ``"elementwise"`` makes them in one
    broadcast array. ``"plain"`` is `conv_transpose` with a bilinear kernel per channel and inserted zeros. ``None``
    chooses per axis: on CPUs "phases" up to stride 8 and "product" above, on other backends "elementwise".

    **Memory** of None on CPUs, in addition to argument and result, in units of the result: in float32
    ``2 / stride``, above stride 8 ``4 / stride``; with the gradient up to 1.6. Sums of 16-bit values are taken in
    float32: up to 2, with the gradient up to 3.2.

    **Values.** Inputs have to be finite. With "phases" and "plain" an infinite input stays within the reach of its
    filter. With the other methods it also meets weights of zero, which makes NaN of the other values in the blocks (of
    one stride) that it reaches.

    Args:
        x: ``[*batch, height, width, channel]``, floating point.
        stride: upsampling factor, one for both axes or one per axis.
        kernel_size: size of the bilinear filter; None means ``2 * stride - stride % 2``.
        padding: as in `conv_transpose`; None means "SAME", which gives exactly ``stride`` times the size.
        method: "phases", "product", "elementwise", "plain" or None; see above.

    Returns:
        ``[*batch, output height, output width, channel]``, with the sizes of `conv_transpose_size`.

    Raises:
        ValueError: as `conv_transpose`.

    Examples:
        >>> x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 3, 1)
        >>> upsample_bilinear(x, (1, 2))[0, :, 0].tolist()
        [0.0, 1.0, 3.0, 5.0, 7.0, 6.0]
        >>> upsample_bilinear(x, (1, 2), kernel_size=(1, 3), padding=(0, 1))[0, :, 0].tolist()
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    x = read_array(x, "x", "[*batch, height, width, channel]")
    if x.ndim < 3 or not are_positive(x.shape[-3:-1]) or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise ValueError(
            f"x is {x.dtype}{list(x.shape)}; it must be floating point, [*batch, height, width, channel], with height "
            "and width at least 1."
        )
    strides = read_ints(stride, 2, "stride", 1)
    size = tuple(2 * s - s % 2 for s in strides)
    if kernel_size is not None:
        size = read_ints(kernel_size, 2, "kernel_size", 1)
    crops = read_crops("SAME" if padding is None else padding, size, strides)
    sizes = compute_output_sizes(x.shape[-3:-1], size, strides, crops, (0, 0))
    batch, channels = x.shape[:-3], x.shape[-1]
    if method is not None:
        check_method(method, ("plain", *_MIXERS))
    elif wants_plain():
        method = "plain"
    if method == "plain":
        filters = np.repeat(np.multiply.outer(make_tent(size[0]), make_tent(size[1]))[..., None, None], channels, -1)
        kernel = jnp.asarray(filters, x.dtype)
        return conv_transpose(x, kernel, strides, crops, feature_group_count=channels, method="plain")
    (height, width), rows, columns = sizes, (size[0], strides[0], crops[0][0]), (size[1], strides[1], crops[1][0])
    x = _upsample_axis(x, *columns, width, method)
    # From here on width and channel are one axis, so that rows are whole lines of memory.
    x = _upsample_axis(reshape(x, *batch, x.shape[-3], width * channels), *rows, height, method)
    return reshape(x, *batch, height, width, channels)


def _upsample_axis(x: Array, size: int, stride: int, low: int, out: Any, method: str | None) -> Array:
    """Upsample the last axis but one: ``[*lead, n, m]`` to ``[*lead, out, m]``."""
    # Output block q, of one stride, sees the cells q + first .. q + last. weights[r, d] is the weight of the d-th of
    # them at phase r.
    first, last = -(-(low - size + 1) // stride), (stride - 1 + low) // stride
    tap = np.arange(stride)[:, None] + low - stride * np.arange(first, last + 1)
    weights = np.where((tap >= 0) & (tap < size), make_tent(size)[np.clip(tap, 0, size - 1)], 0)
    blocks = -(-out // stride)
    pads = [(0, 0, 0)] * x.ndim
    pads[-2] = (-first, blocks + last - x.shape[-2], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    # Sums of 16-bit values are taken in 32 bits, and rounded once for each axis.
    wide = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    cells = [lax.slice_in_dim(wide, d, d + blocks, axis=-2) for d in range(last - first + 1)]
    if method is None:
        method = ("phases" if stride <= _MOST_PHASES else "product") if is_cpu() else "elementwise"
    y = _mix(cells, tuple(map(tuple, weights.tolist())), method).astype(x.dtype)  # [*lead, blocks, stride, m]
    y = reshape(y, *x.shape[:-2], blocks * stride, x.shape[-1])
    return lax.slice_in_dim(y, 0, out, axis=-2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _mix(cells: list[Array], weights: tuple[tuple[float, ...], ...], method: str) -> Array:
    """Compute ``y[..., r, m] = sum_d weights[r][d] * cells[d][..., m]``."""
    return _MIXERS[method](cells, weights)


@_mix.defjvp
def _mix_jvp(weights, method, primals, tangents):
    # The operation is linear, so value and tangent could use one method. The tangent uses one whose transpose, the
    # gradient, is fast too. The transpose of "product" sums over a middle axis, which XLA's CPU backend does slowly. It
    # adds up single phases fast, and for many phases it is faster if their cells are slices of one stacked array.
    value, cells = _mix(primals[0], weights, method), tangents[0]
    if method == "elementwise":
        return value, _mix_elementwise(cells, weights)
    if method == "product":
        stacked = jnp.stack(cells, axis=-2)
        cells = [stacked[..., d, :] for d in range(len(cells))]
    return value, _mix_phases(cells, weights)


def _mix_product(cells, weights):
    stacked = jnp.stack(cells, axis=-2)
    zeros = jnp.zeros_like(stacked[..., None, :, 0])  # split over devices like the cells
    factor = zeros + jnp.asarray(weights, stacked.dtype).reshape((1,) * (stacked.ndim - 2) + (len(weights), -1))
    lead = tuple(range(stacked.ndim - 2))
    dims = (((stacked.ndim - 1,), (stacked.ndim - 2,)), (lead, lead))
    return lax.dot_general(factor, stacked, dims, precision=lax.Precision.HIGHEST)


def _mix_elementwise(cells, weights):
    shape = (1,) * (cells[0].ndim - 1) + (len(weights), 1)
    factors = jnp.asarray(weights, cells[0].dtype).T
    return functools.reduce(
        operator.add, [cell[..., None, :] * factors[d].reshape(shape) for d, cell in enumerate(cells)]
    )


def _mix_phases(cells, weights):
    zero = jnp.zeros_like(cells[0])
    phases = []
    for row in weights:
        phases.append(sum((jnp.asarray(w, c.dtype) * c for w, c in zip(row, cells, strict=True) if w), start=zero))
    return jnp.stack(phases, axis=-2)


_MIXERS = {"phases": _mix_phases, "product": _mix_product, "elementwise": _mix_elementwise}
