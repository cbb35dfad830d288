"""Transposed convolution, bilinear upsampling and their relatives, for any JAX or Flax project.

The file imports nothing else of fcn_jax, so it can be imported or copied alone. Arrays are
``[*batch, *spatial, channel]``, any number of batch axes; kernels are ``[*spatial, in / groups, out]``, as in Flax.

A transposed convolution is usually run as a convolution over an input with ``stride - 1`` zeros between its
values, which multiplies zeros most of the time: all but one in ``stride ** 2``. Here no zero is inserted. An output
position is ``stride * q + r``: the block q says which few inputs reach it, the phase r which kernel taps they
meet. So all phases of all blocks are one matrix product, inputs in reach (patches) times kernel taps, whose result
is put in order by moving phases from channels to space.

With explicit mesh axes (`jax.sharding.AxisType.Explicit`) only the first axis of an input may be split; with automatic
ones any may. Under `jax.export` batch axes may be symbolic; height and width are to be numbers.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from flax.linen.linear import default_kernel_init
from jax import lax
from jax.sharding import PartitionSpec

__all__ = [
    "ConvTranspose",
    "bilinear_init",
    "bilinear_kernel",
    "conv_transpose",
    "conv_transpose_padding",
    "conv_transpose_size",
    "convolutionalize",
    "depth_to_space",
    "max_pool",
    "shift_and_stitch",
    "upsample_bilinear",
]

Array = jax.Array
ArrayLike = jax.Array | np.ndarray
Ints = int | Sequence[int] | np.ndarray
Padding = str | int | Sequence[int | Sequence[int]] | np.ndarray

# Patches larger than this many times the output are not written out; see `conv_transpose`, "Method".
_LARGEST_PATCHES = 4


# ----------------------------------------------------------------------------------------- reading arguments


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _listed(value: Any) -> Any:
    """Sizes and paddings that NumPy has computed, as an int or (nested) lists of ints."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _axes(value: Any, of_an_int: int) -> int:
    """How many axes a value with one entry an axis speaks of."""
    value = _listed(value)
    return max(len(value), 1) if isinstance(value, Sequence) else of_an_int


def _per_axis(value: Any, axes: int, name: str, least: int | None = None) -> tuple[int, ...]:
    """An int, or one int an axis, as one int an axis."""
    value = _listed(value)
    values = (value,) * axes if _is_int(value) else tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) != axes or not all(_is_int(v) for v in values):
        raise ValueError(
            f"{name} is {value!r}; it must be an integer{f' or {axes} integers, one a spatial axis' * (axes > 1)}."
        )
    if least is not None and min(values) < least:
        raise ValueError(f"{name} is {value!r}; the smallest value allowed is {least}.")
    return tuple(int(v) for v in values)


def _pairs(padding: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Padding given as an int, or as an int or a (low, high) pair an axis, as a pair an axis."""
    padding = _listed(padding)
    values = (padding,) * axes if _is_int(padding) else padding
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == axes:
        pairs = tuple((v, v) if _is_int(v) else v for v in values)
        if all(isinstance(v, Sequence) and len(v) == 2 and all(map(_is_int, v)) for v in pairs):
            return tuple((int(low), int(high)) for low, high in pairs)
    raise ValueError(
        f"padding is {padding!r}; for {axes} spatial axes it must be 'SAME', 'VALID', an integer, or {axes} entries, "
        "each an integer or a (low, high) pair; for a pair on a single axis write ((low, high),)."
    )


def _crops(padding: Padding, kernel: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What a transposed convolution's `padding` takes off the low and the high end of its full output.

    The full output has ``(n - 1) * stride + kernel`` values. A negative crop adds zeros instead.
    """
    padding = _listed(padding)
    if padding == "VALID":  # the whole, and at least stride * n
        return tuple((0, min(0, k - s)) for k, s in zip(kernel, strides, strict=True))
    if padding == "SAME":  # exactly stride * n; of an odd number of values the high end loses one more
        low = [max(0, (k - s) // 2) for k, s in zip(kernel, strides, strict=True)]
        return tuple((a, k - s - a) for a, k, s in zip(low, kernel, strides, strict=True))
    return _pairs(padding, len(kernel))


def _known(sizes: Sequence[Any]) -> bool:
    """Whether all sizes are numbers of at least 1, and none is a symbol of `jax.export`."""
    return all(_is_int(n) and n >= 1 for n in sizes)


def _reshape(x: Array, *shape: Any) -> Array:
    """`x.reshape`; an axis 0 that is split over a mesh with explicit axes stays split."""
    first, *others = (*jax.typeof(x).sharding.spec, None)
    if first is None or any(others):
        return x.reshape(shape)
    return jnp.reshape(x, shape, out_sharding=PartitionSpec(first, *(None,) * (len(shape) - 1)))


# ------------------------------------------------------------------------------------------ size arithmetic


def conv_transpose_size(
    n: Ints, kernel: Ints, stride: Ints, padding: Padding = 0, output_padding: Ints = 0
) -> int | tuple[int, ...]:
    """Output size of a transposed convolution: ``(n - 1) * stride - 2 * padding + kernel + output_padding``.

    Args:
        n: input size, at least 1.
        kernel: kernel size.
        stride: upsampling factor.
        padding: as in `conv_transpose`; of a pair, ``low + high`` takes the place of ``2 * padding``.
        output_padding: values added at the high end, less than the stride.

    Returns:
        The size; a tuple with one size an axis when any argument has one value an axis.

    Raises:
        ValueError: arguments with different numbers of axes, a size or stride below 1, an output padding that is not
            less than the stride, or no output left.

    Example:
        >>> conv_transpose_size(16, kernel=64, stride=32, padding=16)
        512
        >>> conv_transpose_size((4, 5), kernel=3, stride=2, padding=1, output_padding=(1, 0))
        (8, 9)
    """
    given = map(_listed, (n, kernel, stride, padding, output_padding))
    several = [v for v in given if not _is_int(v) and not isinstance(v, str)]
    axes = _axes(several[0], 1) if several else 1
    n = _per_axis(n, axes, "n", 1)
    kernel = _per_axis(kernel, axes, "kernel", 1)
    stride = _per_axis(stride, axes, "stride", 1)
    output_padding = _per_axis(output_padding, axes, "output_padding", 0)
    sizes = _output_sizes(n, kernel, stride, _crops(padding, kernel, stride), output_padding)
    return sizes if several else sizes[0]


def _output_sizes(n, kernel, strides, crops, output_padding) -> tuple[int, ...]:
    if any(extra >= s for extra, s in zip(output_padding, strides, strict=True)):
        raise ValueError(
            f"output_padding is {output_padding} with the strides {strides}; it must be smaller than the stride. To "
            "extend the output further, give a negative high padding: padding=((low, -high), ...)."
        )
    spatial = zip(n, kernel, strides, crops, output_padding, strict=True)
    sizes = tuple((a - 1) * s + k - sum(crop) + extra for a, k, s, crop, extra in spatial)
    if min(sizes) < 1:
        raise ValueError(
            f"the output would have the size {sizes}: input {n}, kernel {kernel}, strides {strides}, padding {crops} "
            "crop more than there is; every size must be at least 1, so lower the padding or give a larger input."
        )
    return sizes


def conv_transpose_padding(kernel: Ints, stride: Ints) -> tuple[int, int] | tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding and output padding with which a transposed convolution gives exactly ``stride * n``.

    The inverse of `conv_transpose_size`: ``kernel - 2 * padding + output_padding = stride``, with the output
    padding 0 or 1. The padding is negative for ``kernel < stride - 1``; PyTorch does not know negative padding.

    Args:
        kernel: kernel size.
        stride: upsampling factor.

    Returns:
        Padding and output padding; each with one value an axis when kernel or stride has one value an axis.

    Raises:
        ValueError: an even kernel with stride 1, which no integer padding keeps at the input's size; different numbers
            of axes, or values below 1.

    Example:
        >>> conv_transpose_padding(64, 32)
        (16, 0)
        >>> conv_transpose_padding((4, 3), 2)
        ((1, 1), (0, 1))
    """
    axes = max(_axes(kernel, 1), _axes(stride, 1))
    sizes, strides = _per_axis(kernel, axes, "kernel", 1), _per_axis(stride, axes, "stride", 1)
    for k, s in zip(sizes, strides, strict=True):
        if s == 1 and k % 2 == 0:
            raise ValueError(
                f"kernel {k} with stride 1 has no integer padding that keeps the size: choose an odd kernel, or the "
                f"pair padding ({k // 2 - 1}, {k // 2})."
            )
    extra = tuple((k - s) % 2 for k, s in zip(sizes, strides, strict=True))
    padding = tuple((k - s + e) // 2 for k, s, e in zip(sizes, strides, extra, strict=True))
    return (padding[0], extra[0]) if _is_int(kernel) and _is_int(stride) else (padding, extra)


# ------------------------------------------------------------------------------------ transposed convolution


def depth_to_space(x: ArrayLike, block: Ints) -> Array:
    """Moves blocks of channels into space: ``[*batch, h, w, bh * bw * c]`` to ``[*batch, h * bh, w * bw, c]``.

    Channel ``(i * bw + j) * c + k`` of cell (y, x) goes to channel k of position (y * bh + i, x * bw + j).

    Args:
        x: ``[*batch, *spatial, channels]``.
        block: the factor of each spatial axis; one integer means two axes.

    Raises:
        ValueError: channels that are no multiple of the block, too few axes, or a block that is no integers.

    Example:
        >>> depth_to_space(jnp.arange(4).reshape(1, 1, 4), 2)[:, :, 0].tolist()
        [[0, 1], [2, 3]]
    """
    x = jnp.asarray(x)
    axes = _axes(block, 2)
    block = _per_axis(block, axes, "block", 1)
    if x.ndim < axes + 1 or x.shape[-1] % math.prod(block):
        raise ValueError(
            f"x has the shape {x.shape}; for the block {block} it needs {axes} spatial axes and a number of channels "
            f"that is a multiple of {math.prod(block)}."
        )
    return _depth_to_space(x, block)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _depth_to_space(x: Array, block: tuple[int, ...]) -> Array:
    axes = len(block)
    batch, spatial = x.shape[: -axes - 1], x.shape[-axes - 1 : -1]
    x = _reshape(x, *batch, *spatial, *block, x.shape[-1] // math.prod(block))
    first = len(batch)
    interleaved = [first + axis + half for axis in range(axes) for half in (0, axes)]
    x = x.transpose(*range(first), *interleaved, x.ndim - 1)
    return _reshape(x, *batch, *(n * b for n, b in zip(spatial, block, strict=True)), x.shape[-1])


@_depth_to_space.defjvp
def _depth_to_space_jvp(block, primals, tangents):
    # Linear, but where the phases are few XLA's CPU backend moves their lines slowly one by one, and fast as slices put
    # side by side: that is the transpose, the gradient, of a split into phases put one below the other.
    y, x = _depth_to_space(primals[0], block), tangents[0]
    if jax.default_backend() != "cpu" or len(block) != 2 or block[0] > 4:
        return y, _depth_to_space(x, block)
    *batch, height, width, channels = x.shape
    rows = lax.split(x, (channels // block[0],) * block[0], axis=x.ndim - 1)
    rows = [_reshape(row, *batch, height, 1, width * channels // block[0]) for row in rows]
    return y, _reshape(jnp.concatenate(rows, axis=-2), *y.shape)


def conv_transpose(
    x: ArrayLike,
    kernel: ArrayLike,
    strides: Ints = 1,
    padding: Padding = "SAME",
    *,
    output_padding: Ints = 0,
    feature_group_count: int = 1,
    bias: ArrayLike | None = None,
    precision: Any = None,
    method: str | None = None,
) -> Array:
    """Transposed convolution, exact, without inserted zeros.

    Every input value places a copy of the kernel on the output, `strides` apart, and what overlaps adds up::

        full[stride * i + j] += x[i] @ kernel[size - 1 - j]

    (the kernel is laid out as in `nn.ConvTranspose`, mirrored with respect to PyTorch and Caffe); then `padding`
    values are cropped off both ends of each axis.

    **Method.** ``"matmul"`` multiplies patches with kernel taps, ``"conv"`` is the same without writing the patches
    out (an ordinary convolution with ``ceil(kernel / stride)`` taps and ``stride ** axes`` times the channels),
    ``"dilated"`` is XLA's convolution over an input with inserted zeros. ``None`` chooses when tracing:

    1. with groups on the CPU: "matmul", because XLA's grouped convolution over inserted zeros, and with several inputs
       a group its gradient, is slow there; but "dilated" at stride 1 with one input a group, where it is not;
    2. stride 1 on every axis: "dilated", which then inserts no zero and is an ordinary convolution;
    3. on a TPU: "conv", because its matrix unit gathers patches by itself;
    4. on other backends: "matmul" while the patches are at most 4 times the output, else "conv".

    **Memory**, on the CPU in float32, beside arguments and result. "matmul" takes the result once more, before it is
    cropped, and up to two copies of patches and kernel; with the gradients up to three times the three. The patches are
    ``ceil(kernel / stride) ** axes * in / (stride ** axes * out)`` times the result: 1 time at kernel 4 and stride 2,
    1/256 at kernel 64 and stride 32, and by default never above 4 without groups. With groups there is no such limit: a
    depthwise kernel of 9 at stride 2 has 6.25 times the result, and with two copies takes 13 times, with its gradients
    20 times. Where memory is short there, `method="dilated"` takes the result once more, with the gradients twice (at
    stride 1 nothing, and once). "conv" takes the result once more, with the gradients up to 3.5 times. 16-bit values
    are computed in float32 on the CPU and take twice that; "dilated" then takes 4, with the gradients 6 times it.

    **Values.** Inputs are to be finite: where a kernel is no multiple of the stride, taps of zero meet them, and an inf
    becomes NaN in the whole of its blocks.

    **Sharding.** With automatic mesh axes any; with explicit ones `x` may be split along its first axis, and the kernel
    not.

    Args:
        x: ``[*batch, *spatial, in]``, floating point; one or two spatial axes (any number works).
        kernel: ``[*spatial, in / groups, out]``, of the same dtype.
        strides: upsampling factor, one for all axes or one an axis.
        padding: how much of the full output is cropped off: an integer, or an integer or a (low, high) pair an axis,
            as in PyTorch and Caffe; a negative value extends the output with zeros. "SAME" gives
            ``stride * n``, "VALID" the full output, both as `nn.ConvTranspose` does. (The explicit pairs q of
            `nn.ConvTranspose` pad its dilated input: they are ``kernel - 1 - padding``.)
        output_padding: values added at the high end, less than the stride; as in PyTorch they are the
            full output's own values where it has them, else zeros.
        feature_group_count: number of groups g; output channels of group i see only its input channels.
        bias: ``[out]``, added everywhere, the extended border too.
        precision: as in `jax.lax.dot_general`.
        method: see above.

    Returns:
        ``[*batch, *output spatial, out]``, with the sizes of `conv_transpose_size` and the dtype of `x`.

    Raises:
        ValueError: shapes, dtypes or values that do not fit.

    Example:
        One value and two overlapping copies of the kernel (3, 2, 1), mirrored::

        >>> x = jnp.array([[1.0], [10.0]])
        >>> kernel = jnp.array([3.0, 2.0, 1.0]).reshape(3, 1, 1)
        >>> conv_transpose(x, kernel, strides=2, padding=0)[:, 0].tolist()
        [1.0, 2.0, 13.0, 20.0, 30.0]
        >>> conv_transpose(x, kernel, strides=2, padding=((1, -1),))[:, 0].tolist()
        [2.0, 13.0, 20.0, 30.0, 0.0]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    axes = kernel.ndim - 2
    if axes < 1 or x.ndim < axes + 1:
        raise ValueError(
            f"x has the shape {x.shape} and the kernel {kernel.shape}; x must be [*batch, *spatial, in] and the kernel "
            "[*spatial, in / groups, out], with the same number of spatial axes, at least one."
        )
    if not jnp.issubdtype(x.dtype, jnp.inexact) or x.dtype != kernel.dtype:
        raise ValueError(f"x is {x.dtype} and the kernel {kernel.dtype}; cast both to one floating-point dtype.")
    groups = feature_group_count
    features = kernel.shape[-1]
    if not _is_int(groups) or groups < 1 or kernel.shape[-2] * groups != x.shape[-1] or features % groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels, the kernel {kernel.shape[-2]} in and {features} out, with "
            f"feature_group_count {groups}; the channels of x must be the kernel's times the groups, and the groups "
            "must divide the outputs."
        )
    if bias is not None and jnp.shape(bias) != (features,):
        raise ValueError(
            f"bias has the shape {jnp.shape(bias)}; it must be one value an output channel, ({features},)."
        )
    size = kernel.shape[:axes]
    batch, spatial = x.shape[: -axes - 1], x.shape[-axes - 1 : -1]
    if not _known((*size, *spatial)):
        raise ValueError(
            f"the input's size {spatial} and the kernel's {size} must be numbers of at least 1 on every axis."
        )
    strides = _per_axis(strides, axes, "strides", 1)
    output_padding = _per_axis(output_padding, axes, "output_padding", 0)
    crops = _crops(padding, size, strides)
    sizes = _output_sizes(spatial, size, strides, crops, output_padding)
    if method is None:
        method = _choose_method(size, strides, kernel.shape[-2] * groups, features, groups)
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it must be None or one of {', '.join(_METHODS)}.")

    low = tuple(crop[0] for crop in crops)
    x = x if len(batch) == 1 else _reshape(x, math.prod(batch), *spatial, x.shape[-1])
    y = _METHODS[method](x, kernel, strides, low, sizes, groups, precision)
    y = y if len(batch) == 1 else _reshape(y, *batch, *sizes, features)
    return y if bias is None else y + jnp.asarray(bias, y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _choose_method(size, strides, ins: int, outs: int, groups: int) -> str:
    """The rule in `conv_transpose`'s docstring."""
    backend = jax.default_backend()
    if groups > 1 and backend == "cpu":
        return "dilated" if math.prod(strides) == 1 and ins == groups else "matmul"
    if math.prod(strides) == 1:
        return "dilated"
    taps = math.prod(-(-k // s) for k, s in zip(size, strides, strict=True))
    small = taps * ins <= _LARGEST_PATCHES * math.prod(strides) * outs
    return "matmul" if small and backend != "tpu" else "conv"


def _dilated(x, kernel, strides, low, sizes, groups, precision):
    """XLA's own form: an ordinary convolution over the input with inserted zeros."""
    axes = len(strides)
    # The convolution gives full[begin : end], where its padding lies between 0 and k - 1, and so does that of its
    # gradient: with a negative one XLA's CPU backend reads beyond its arrays (openxla/xla issue 48713).
    pads, border = [], []
    for n, k, s, a, out in zip(x.shape[1:-1], kernel.shape, strides, low, sizes, strict=False):
        full = (n - 1) * s + k
        begin, after = min(max(a, 0), k - 1), min(max(full - a - out, 0), k - 1)
        pads.append((k - 1 - begin, k - 1 - after))
        border.append((begin - a, a + out - (full - after), 0))
    inserted = strides
    if jax.default_backend() == "cpu" and math.prod(strides) > 1:
        # XLA's CPU compiler aborts on some gradients of dilated inputs, where it swaps the convolution's operands.
        zeros = [(0, 0, 0), *((0, 0, s - 1) for s in strides), (0, 0, 0)]
        x, inserted = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), zeros)), (1,) * axes
    channel = axes + 1
    spec = (0, channel, *range(1, channel))
    y = lax.conv_general_dilated(
        x,
        kernel,
        (1,) * axes,
        pads,
        lhs_dilation=inserted,
        dimension_numbers=lax.ConvDimensionNumbers(spec, (channel, axes, *range(axes)), spec),
        feature_group_count=groups,
        precision=precision,
    )
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *border, (0, 0, 0)])  # a negative pad crops


def _blockwise(x, kernel, strides, low, sizes, groups, precision, *, multiply):
    """The output as blocks of one stride: ``full[stride * q + r] = sum_t x[q - t] @ mirrored[stride * t + r]``."""
    axes = len(strides)
    taps = tuple(-(-k // s) for k, s in zip(kernel.shape, strides, strict=False))  # t counts them
    spatial = tuple(zip(x.shape[1:-1], taps, strides, low, sizes, strict=True))
    # Only the blocks q that hold something of the output; the rest of it, beyond the full output, is zero.
    first = tuple(min(max(a // s, 0), n + t - 1) for n, t, s, a, _ in spatial)
    last = tuple(
        min(max(-(-(a + out) // s), f), n + t - 1) for f, (n, t, s, a, out) in zip(first, spatial, strict=True)
    )

    # The inputs that reach them: x[first - taps + 1 : last], with zeros beyond its ends.
    pads = [(t - 1 - f, q - n, 0) for f, q, (n, t, _, _, _) in zip(first, last, spatial, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])

    # Taps as [groups, *tap, in, *phase, out]: the kernel mirrored, its taps in the order of the inputs in a patch. What
    # was last stays last, so that whole lines of memory are moved.
    fill = [(t * s - k, 0, 0) for t, s, k in zip(taps, strides, kernel.shape, strict=False)]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*fill, (0, 0, 0), (0, 0, 0)])
    split = [v for pair in zip(taps, strides, strict=True) for v in pair]
    kernel = kernel.reshape(*split, kernel.shape[-2], groups, -1)
    kernel = lax.rev(kernel, range(1, 2 * axes, 2))
    kernel = kernel.transpose(2 * axes + 1, *range(0, 2 * axes, 2), 2 * axes, *range(1, 2 * axes, 2), 2 * axes + 2)
    blocks = tuple(q - f for q, f in zip(last, first, strict=True))
    y = multiply(x, kernel, blocks, taps, precision)  # [batch, *blocks, *phase, out]
    y = depth_to_space(_reshape(y, *y.shape[: axes + 1], math.prod(y.shape[axes + 1 :])), strides)

    zero = jnp.zeros((), y.dtype)  # a negative pad crops
    pads = [(f * s - a, a + out - q * s, 0) for f, q, (_, _, s, a, out) in zip(first, last, spatial, strict=True)]
    return lax.pad(y, zero, [(0, 0, 0), *pads, (0, 0, 0)])


def _multiply_patches(x, kernel, blocks, taps, precision):
    """Writes the patches out and multiplies once."""
    groups, ins = kernel.shape[0], kernel.shape[len(taps) + 1]
    windows = [tuple(slice(t, t + q) for t, q in zip(tap, blocks, strict=True)) for tap in np.ndindex(*taps)]
    shape, outs = (x.shape[0], *blocks), kernel.shape[len(taps) + 2 :]
    if groups == 1:
        patches = jnp.concatenate([x[:, *window] for window in windows], axis=-1)
        kernel = kernel.reshape(-1, math.prod(outs))
        if jax.default_backend() == "cpu":
            # A matrix product spelled as a convolution without spatial axes. XLA turns it into the same product, but
            # its gradient by the kernel is patches' @ cotangent, where that of `dot_general` is cotangent' @ patches,
            # for which XLA's CPU backend first copies the large cotangent into another order.
            rows = lax.ConvDimensionNumbers((0, 1), (1, 0), (0, 1))
            patches = _reshape(patches, math.prod(shape), patches.shape[-1])
            y = lax.conv_general_dilated(patches, kernel, (), (), dimension_numbers=rows, precision=precision)
        else:
            y = lax.dot_general(patches, kernel, (((patches.ndim - 1,), (0,)), ((), ())), precision=precision)
        return _reshape(y, *shape, *outs)
    patches = jnp.stack([_reshape(x[:, *window], *shape, groups, ins) for window in windows], axis=-2)
    kernel = kernel.reshape(groups, -1, ins, math.prod(outs))
    n = patches.ndim
    dims = (((n - 2, n - 1), (1, 2)), ((n - 3,), (0,)))
    y = lax.dot_general(patches, kernel, dims, precision=precision)  # [groups, *shape, outs]
    y = jnp.moveaxis(y, 0, -2)  # [*shape, groups, outs]
    y = jnp.moveaxis(_reshape(y, *shape, groups, *outs), len(shape), -2)
    return _reshape(y, *y.shape[:-2], groups * outs[-1])


def _convolve_patches(x, kernel, blocks, taps, precision):
    """Lets a convolution gather the patches."""
    groups, axes = kernel.shape[0], len(taps)
    outs = kernel.shape[axes + 2 :]
    kernel = jnp.moveaxis(kernel, 0, axes + 1)  # [*tap, in, groups, *phase, out]
    kernel = kernel.reshape(*kernel.shape[: axes + 1], -1)
    channel = axes + 1
    spec = (0, channel, *range(1, channel))
    y = lax.conv_general_dilated(
        x,
        kernel,
        (1,) * axes,
        "VALID",
        dimension_numbers=lax.ConvDimensionNumbers(spec, (channel, axes, *range(axes)), spec),
        feature_group_count=groups,
        precision=precision,
    )
    y = jnp.moveaxis(_reshape(y, x.shape[0], *blocks, groups, *outs), axes + 1, -2)
    return _reshape(y, *y.shape[:-2], groups * outs[-1])


_METHODS = {
    "matmul": functools.partial(_blockwise, multiply=_multiply_patches),
    "conv": functools.partial(_blockwise, multiply=_convolve_patches),
    "dilated": _dilated,
}


class ConvTranspose(nn.Module):
    """Transposed convolution with the parameters of `nn.ConvTranspose`, computed by `conv_transpose`.

    A checkpoint of `nn.ConvTranspose` moves over as it is (one made with ``transpose_kernel=True`` after
    ``kernel[::-1, ::-1].swapaxes(-1, -2)``), and "SAME" and "VALID" give the same results. PyTorch's weights
    ``[in, out / groups, kh, kw]`` become a kernel by ``weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)`` (one group).

    Attributes:
        features: number of output channels.
        kernel_size: one integer for a 1-D layer, else one an axis.
        strides: upsampling factor, one for all axes or one an axis; None means 1.
        padding: "SAME", "VALID", integers or (low, high) pairs, which crop the OUTPUT as in PyTorch and Caffe; see
            `conv_transpose`.
        output_padding: values added at the high end, less than the stride.
        feature_group_count: number of groups g; the kernel is ``[*kernel_size, in / g, features]``.
        use_bias: whether to add a bias.
        dtype: dtype of the computation and the result; None infers it from input and parameters.
        param_dtype: dtype of the parameters.
        precision: as in `jax.lax.dot_general`.
        kernel_init: initializer of the kernel; `bilinear_init` starts as bilinear upsampling.
        bias_init: initializer of the bias.
        method: see `conv_transpose`.

    Raises:
        ValueError: as `conv_transpose`.

    Example:
        >>> layer = ConvTranspose(21, (64, 64), (32, 32), padding=16, use_bias=False, kernel_init=bilinear_init)
        >>> scores, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 4, 5, 21)))
        >>> scores.shape, variables["params"]["kernel"].shape
        ((1, 128, 160, 21), (64, 64, 21, 21))
    """

    features: int
    kernel_size: Ints
    strides: Ints | None = None
    padding: Padding = "SAME"
    output_padding: Ints = 0
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Callable[..., Any] = default_kernel_init
    bias_init: Callable[..., Any] = nn.initializers.zeros_init()
    method: str | None = None

    @nn.compact
    def __call__(self, x: ArrayLike) -> Array:
        """Upsamples ``[*batch, *spatial, in]`` to ``[*batch, *output spatial, features]``."""
        x = jnp.asarray(x)
        size = _per_axis(self.kernel_size, _axes(self.kernel_size, 1), "kernel_size", 1)
        (features,) = _per_axis(self.features, 1, "features", 1)
        (groups,) = _per_axis(self.feature_group_count, 1, "feature_group_count", 1)
        if x.ndim < len(size) + 1 or x.shape[-1] < 1 or x.shape[-1] % groups:
            raise ValueError(
                f"x has the shape {x.shape} with the kernel_size {size} and feature_group_count {groups}; it must be "
                f"[*batch, *spatial, in] with {len(size)} spatial axes, and the groups must divide its channels."
            )
        shape = (*size, x.shape[-1] // groups, features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv_transpose(
            x,  # pyright: ignore[reportArgumentType]
            kernel,  # pyright: ignore[reportArgumentType]
            1 if self.strides is None else self.strides,
            self.padding,
            output_padding=self.output_padding,
            feature_group_count=groups,
            bias=bias,
            precision=self.precision,
            method=self.method,
        )


# ---------------------------------------------------------------------------------------- bilinear upsampling


def _tent(size: int) -> np.ndarray:
    """The bilinear filter of one axis: ``1 - |j - centre| / factor``, the reference's `upsample_filt`."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


def bilinear_kernel(size: Ints) -> np.ndarray:
    """The bilinear filter of one channel, float32[height, width].

    It is the outer product of two tents ``1 - |j - centre| / factor`` with ``factor = (size + 1) // 2``: of the even
    size 2s the tent of factor s between two values, of the odd size 2s - 1 the one upon a value. At stride s both
    are a partition of unity, so a constant stays constant away from the border. Source: `upsample_filt` in the
    reference's ``surgery.py``; docs/upsampling.md derives it.

    Args:
        size: kernel size, one for both axes or (height, width).

    Raises:
        ValueError: a size below 1.

    Example:
        >>> bilinear_kernel(4)[0].tolist()
        [0.0625, 0.1875, 0.1875, 0.0625]
        >>> bilinear_kernel((1, 3)).tolist()
        [[0.5, 1.0, 0.5]]
    """
    height, width = _per_axis(size, 2, "size", 1)
    return np.outer(_tent(height), _tent(width)).astype(np.float32)


def bilinear_init(key: Array | None, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Initializer for a transposed convolution's kernel: bilinear upsampling, every channel to itself.

    Output channel o gets the bilinear filter from input channel ``o % (in / groups)`` and zeros from the others. So
    as many outputs as inputs give the diagonal of the reference, a depthwise kernel (in / groups = 1) one filter a
    channel, and a grouped one the diagonal within each group. Source: `interp` in the reference's ``surgery.py``.

    Args:
        key: unused, as in every initializer without randomness.
        shape: ``[*spatial, in / groups, out]``.
        dtype: of the kernel.

    Raises:
        ValueError: outputs that are no multiple of the inputs of a group.

    Example:
        >>> bilinear_init(None, (4, 4, 2, 2))[1, 1].tolist()
        [[0.5625, 0.0], [0.0, 0.5625]]
    """
    del key
    if len(shape) < 3 or min(shape) < 1 or shape[-1] % shape[-2]:
        raise ValueError(
            f"the kernel's shape is {tuple(shape)}; bilinear_init needs [*spatial, in / groups, out], outputs a "
            "multiple of the inputs of a group, for example as many scores out as in."
        )
    *size, ins, outs = shape
    tents = functools.reduce(np.multiply.outer, map(_tent, size))
    itself = np.arange(ins)[:, None] == np.arange(outs) % ins
    return jnp.asarray(np.multiply.outer(tents, itself), dtype)


def upsample_bilinear(
    x: ArrayLike, stride: Ints, *, kernel_size: Ints | None = None, padding: Padding | None = None
) -> Array:
    """The fixed bilinear transposed convolution, every channel by itself: two small matrix products.

    Equal to `ConvTranspose` without bias and with `bilinear_init`, whose filter is separable: columns first, then
    rows, each output a weighted mean of the inputs that reach it.

    **Alignment** (docs/upsampling.md has the drawings), against ``jax.image.resize(..., "bilinear")``:

    - kernel 2s, padding s / 2 (the default for even s): cell i has its centre at ``s * i + (s - 1) / 2``, as with
      pixels that are little squares. Equal to `jax.image.resize`, except within s / 2 of the border, where
      the sum fades towards the zeros outside while `resize` repeats the last value.
    - kernel 2s - 1, padding s - 1: cell i lies upon ``s * i``, the size is ``s * (n - 1) + 1``; first and last cell
      meet the corners ("align corners", `jax.image.scale_and_translate` with scale s and translation
      ``(1 - s) / 2``), and nothing fades. For a net whose cells lie there, such as a ResNet.
    - odd s, default kernel 2s - 1 and padding (s - 1) / 2: both at once, the centres of the first
      kind; equal to `jax.image.resize` as there.

    **Memory**, on the CPU beside argument and result: in float32 ``2 / stride`` of the result, above stride 8
    ``4 / stride``; with the gradient up to 1.6 times the result. Sums of 16-bit values are taken in float32: up to
    twice, with the gradient up to 3.2 times the result.

    **Values.** Inputs are to be finite. Up to stride 8 on the CPU an inf stays within the reach of its filter; above,
    and on other backends at every stride, it meets weights of zero as well, which makes NaN of what else is in the
    blocks (of one stride) that it reaches.

    Args:
        x: ``[*batch, height, width, channel]``, floating point.
        stride: upsampling factor, one for both axes or one an axis.
        kernel_size: of the bilinear filter; ``2 * stride - stride % 2`` when None.
        padding: as in `conv_transpose`; None means "SAME", exactly ``stride`` times the size.

    Returns:
        ``[*batch, output height, output width, channel]``, with the sizes of `conv_transpose_size`.

    Raises:
        ValueError: as `conv_transpose`.

    Example:
        >>> x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 3, 1)
        >>> upsample_bilinear(x, (1, 2))[0, :, 0].tolist()
        [0.0, 1.0, 3.0, 5.0, 7.0, 6.0]
        >>> upsample_bilinear(x, (1, 2), kernel_size=(1, 3), padding=(0, 1))[0, :, 0].tolist()
        [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    x = jnp.asarray(x)
    if x.ndim < 3 or not _known(x.shape[-3:-1]) or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise ValueError(
            f"x is {x.dtype}{list(x.shape)}; it must be floating point, [*batch, height, width, channel], with numbers "
            "of at least 1 as height and width."
        )
    strides = _per_axis(stride, 2, "stride", 1)
    size = tuple(2 * s - s % 2 for s in strides)
    if kernel_size is not None:
        size = _per_axis(kernel_size, 2, "kernel_size", 1)
    crops = _crops("SAME" if padding is None else padding, size, strides)
    sizes = _output_sizes(x.shape[-3:-1], size, strides, crops, (0, 0))
    (height, width), rows, columns = sizes, (size[0], strides[0], crops[0][0]), (size[1], strides[1], crops[1][0])
    batch, channels = x.shape[:-3], x.shape[-1]
    x = _upsample_axis(x, *columns, width)
    # Rows are whole lines of memory from here on: width and channel are one axis.
    x = _upsample_axis(_reshape(x, *batch, x.shape[-3], width * channels), *rows, height)
    return _reshape(x, *batch, height, width, channels)


def _upsample_axis(x: Array, size: int, stride: int, low: int, out: int) -> Array:
    """Bilinear upsampling of the last axis but one, ``[*lead, n, m]`` to ``[*lead, out, m]``."""
    # Output block q, of one stride, sees the cells q + first .. q + last; weights[r, d]: of cell d at phase r.
    first, last = -(-(low - size + 1) // stride), (stride - 1 + low) // stride
    tap = np.arange(stride)[:, None] + low - stride * np.arange(first, last + 1)
    weights = np.where((tap >= 0) & (tap < size), _tent(size)[np.clip(tap, 0, size - 1)], 0)
    blocks = -(-out // stride)
    pads = [(0, 0, 0)] * x.ndim
    pads[-2] = (-first, blocks + last - x.shape[-2], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    # Sums of 16-bit values are taken in 32 bits and rounded once.
    wide = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    cells = [lax.slice_in_dim(wide, d, d + blocks, axis=-2) for d in range(last - first + 1)]
    y = _mix(cells, tuple(map(tuple, weights.tolist()))).astype(x.dtype)  # [*lead, blocks, stride, m]
    y = _reshape(y, *x.shape[:-2], blocks * stride, x.shape[-1])
    return lax.slice_in_dim(y, 0, out, axis=-2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _mix(cells: list[Array], weights: tuple[tuple[float, ...], ...]) -> Array:
    """``y[..., r, m] = sum_d weights[r][d] * cells[d][..., m]``, in the form that is fastest on the backend."""
    if jax.default_backend() != "cpu":
        return _mix_elementwise(cells, weights)
    return _mix_phases(cells, weights) if len(weights) <= 8 else _mix_product(cells, weights)


@_mix.defjvp
def _mix_jvp(weights, primals, tangents):
    # Linear: the tangent is mixed as the value is, but in a form whose transpose, the gradient, is fast too. XLA's CPU
    # backend sums over a middle axis slowly and adds single phases fast; many of them faster in one array.
    value, cells = _mix(primals[0], weights), tangents[0]
    if jax.default_backend() != "cpu":
        return value, _mix_elementwise(cells, weights)
    if len(weights) > 8:
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


# ---------------------------------------------------------------------------------------------------- pooling


def max_pool(
    x: ArrayLike, window: Ints, strides: Ints | None = None, padding: Padding = 0, *, ceil: bool = False
) -> Array:
    """Largest value of each window, with a gradient that is fast on the CPU.

    Without `ceil` the result is that of `nn.max_pool`. The gradient goes to the FIRST largest value of a
    window in reading order, as in PyTorch and Caffe; the forward pass remembers its place in one byte, and the
    backward pass compares it, where XLA's own gradient searches every window again (a window of 255 places or more
    takes four bytes).

    A window with a NaN gives NaN; its gradient goes to the largest value before the first NaN in reading order, or to
    the NaN where nothing is before it. The gradient of a window of nothing but -inf goes to its first place. Either is
    lost where that place lies in the padding, which counts as -inf.

    Args:
        x: ``[*batch, height, width, channel]``, floating point or integers.
        window: height and width of the window, or one integer for both.
        strides: distance of the windows; None means the window's size (`nn.max_pool` takes 1).
        padding: "SAME" or "VALID" as in `nn.max_pool`, or integers or (low, high) pairs of the INPUT's border, smaller
            than the window; what lies there is never the largest.
        ceil: round the number of windows up instead of down, as Caffe does (and PyTorch with ``ceil_mode``):
            ``ceil((n + low + high - window) / stride) + 1``, at least one, less a last one that would start behind the
            input and its low padding. A window may then hang over the high end; it sees what is there.

    Returns:
        ``[*batch, windows down, windows across, channel]``.

    Raises:
        ValueError: values that are neither floating point nor integers, padding that is not smaller than the window, or
            (without `ceil`) a window larger than the input.

    Example:
        >>> x = jnp.arange(5.0).reshape(1, 5, 1)
        >>> max_pool(x, (1, 2))[0, :, 0].tolist()
        [1.0, 3.0]
        >>> max_pool(x, (1, 2), ceil=True)[0, :, 0].tolist()
        [1.0, 3.0, 4.0]
    """
    x = jnp.asarray(x)
    if x.ndim < 3 or not _known(x.shape[-3:-1]):
        raise ValueError(
            f"x has the shape {x.shape}; it must be [*batch, height, width, channel], with numbers of at least 1 as "
            "height and width."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"x is {x.dtype}; it must be floating point or integers. For the maximum of truth values cast them: "
            "x.astype(jnp.uint8)."
        )
    window = _per_axis(window, 2, "window", 1)
    strides = window if strides is None else _per_axis(strides, 2, "strides", 1)
    spatial, padding = x.shape[-3:-1], _listed(padding)
    if padding == "SAME":
        excess = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(spatial, window, strides, strict=True)]
        pads = tuple((e // 2, e - e // 2) for e in excess)
    else:
        pads = _pairs(0 if padding == "VALID" else padding, 2)
    if any(not 0 <= p < k for pair, k in zip(pads, window, strict=True) for p in pair):
        raise ValueError(
            f"padding {padding!r} with the window {window}: it must be at least 0 and smaller than the window, or a "
            "window could see nothing but padding."
        )
    counts = []
    for n, k, s, (low, high) in zip(spatial, window, strides, pads, strict=True):
        room = n + low + high - k
        count = -(-max(room, 0) // s) + 1 if ceil else room // s + 1
        counts.append(count - 1 if (count - 1) * s >= n + low else count)
        if counts[-1] < 1:
            raise ValueError(
                f"the window {window} is larger than the input {spatial} with the padding {pads}; give a larger input, "
                "more padding, or ceil=True."
            )
    y = _max_pool(
        _reshape(x, math.prod(x.shape[:-3]), *x.shape[-3:]), window, strides, (pads[0][0], pads[1][0]), tuple(counts)
    )
    return _reshape(y, *x.shape[:-3], *y.shape[1:])


def _taps(x, window, strides, low, counts):
    """For each place of the window, in reading order, its values in all windows."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        least = jnp.asarray(-jnp.inf, x.dtype)
    else:
        least = jnp.asarray(jnp.iinfo(x.dtype).min, x.dtype)
    ends = [(c - 1) * s + k for c, s, k in zip(counts, strides, window, strict=True)]
    pads = [(a, end - a - n, 0) for a, end, n in zip(low, ends, x.shape[1:-1], strict=True)]
    x = lax.pad(x, least, [(0, 0, 0), *pads, (0, 0, 0)])
    reach = [(c - 1) * s + 1 for c, s in zip(counts, strides, strict=True)]
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + reach[0], j + reach[1], x.shape[3]), (1, *strides, 1))
        for i, j in np.ndindex(*window)
    ]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x, window, strides, low, counts):
    return functools.reduce(jnp.maximum, _taps(x, window, strides, low, counts))


@_max_pool.defjvp
def _max_pool_jvp(window, strides, low, counts, primals, tangents):
    (x,), (dx,) = primals, tangents
    values = _taps(x, window, strides, low, counts)
    code = jnp.uint8 if len(values) < 255 else jnp.int32
    y, place = values[0], jnp.zeros(values[0].shape, code)
    for tap, value in enumerate(values[1:], start=1):
        place = jnp.where(value > y, jnp.asarray(tap, code), place)
        y = jnp.maximum(y, value)
    return y, _take_places(dx, place, window, strides, low)


def _take_places(dx, place, window, strides, low):
    """The values of `dx` at the remembered places: linear in `dx`, and transposed without a scatter.

    As in `_blockwise`, input positions are blocks of one stride, and block Q belongs to the windows Q - t, at most
    ``ceil(window / stride)`` an axis. `place` is shifted instead of `dx`: the transpose then reads shifted cotangents
    and writes every position once.
    """
    batch, *counts, channels = place.shape
    reach = [-(-k // s) for k, s in zip(window, strides, strict=True)]
    blocks = [c + t - 1 for c, t in zip(counts, reach, strict=True)]
    nowhere = math.prod(window)
    # codes[t, r, u, v]: the number in the window of the place in block t, u at phase r, v.
    codes = np.full([t * s for t, s in zip(reach, strides, strict=True)], nowhere)
    codes[: window[0], : window[1]] = np.arange(nowhere).reshape(window)
    codes = codes.reshape(reach[0], strides[0], reach[1], strides[1])

    ends = [q * s - a - n for q, s, a, n in zip(blocks, strides, low, dx.shape[1:-1], strict=True)]
    dx = lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), (low[0], ends[0], 0), (low[1], ends[1], 0), (0, 0, 0)])
    dx = _reshape(dx, batch, blocks[0], strides[0], blocks[1], strides[1], channels)
    # Padded with a code that no place has: not even `nowhere`, which stands for phases beyond the window.
    border = [(0, 0, 0), (reach[0] - 1, reach[0] - 1, 0), (reach[1] - 1, reach[1] - 1, 0), (0, 0, 0)]
    place = lax.pad(place, jnp.asarray(nowhere + 1, place.dtype), border)
    dy = jnp.zeros((), dx.dtype)
    for t, u in np.ndindex(*reach):
        rows, columns = reach[0] - 1 - t, reach[1] - 1 - u
        shifted = place[:, rows : rows + blocks[0], columns : columns + blocks[1]]
        code = jnp.asarray(codes[t, :, u], place.dtype)[None, None, :, None, :, None]
        here = shifted[:, :, None, :, None] == code
        taken = jnp.where(here, dx, jnp.zeros((), dx.dtype)).sum((2, 4))
        dy = dy + taken[:, t : t + counts[0], u : u + counts[1]]
    return dy


# ------------------------------------------------------------------------------------- from classifier to map


def convolutionalize(kernel: ArrayLike, window: Ints, order: str = "hwc") -> Array:
    """A dense layer's weights as those of a convolution: a classifier becomes a net that gives a map.

    A dense layer over a flattened ``[h, w, in]`` feature map is a convolution that fits once; on a larger map it
    fits many times, and its outputs form a map of scores (paper section 3.1).

    Args:
        kernel: ``[h * w * in, out]``, as Flax stores it; PyTorch's and Caffe's ``[out, in * h * w]`` need ``.T``.
        window: (h, w) of the feature map, or one integer for both.
        order: how the map was flattened: "hwc" in Flax, "chw" in PyTorch and Caffe.

    Returns:
        ``[h, w, in, out]``, for a convolution with padding 0.

    Raises:
        ValueError: weights that do not fit the window, or an unknown order.

    Example:
        >>> convolutionalize(jnp.zeros((25088, 10)), 7, "chw").shape
        (7, 7, 512, 10)
    """
    kernel = jnp.asarray(kernel)
    height, width = _per_axis(window, 2, "window", 1)
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
    """Dense predictions of a coarse net: one pass for each shift of the input, interlaced (paper section 3.2).

    The input is shifted right and down by every ``(i, j)`` below the stride; what the net says of all of them, put in
    turn, is what it would say with its last stride removed and its filters dilated (à trous), for a net without
    padding. It costs ``stride ** 2`` passes, run one after the other.

    Args:
        net: ``[*batch, h, w, in]`` to ``[*batch, h', w', out]``, of total stride `stride`.
        x: ``[*batch, height, width, in]``.
        stride: the net's total stride, one for both axes or one an axis.

    Returns:
        ``[*batch, h' * stride, w' * stride, out]``, where h', w' is the size of ``net(x)``; position 0 is its first
        cell. Behind the last cell (the last ``stride - 1`` positions) the net may see zeros beyond the input.

    Raises:
        ValueError: an input without a known height and width, or a net whose size does not follow the stride.

    Example:
        >>> halve = lambda x: max_pool(x, 2)
        >>> x = jnp.array([[1.0, 5.0, 2.0, 4.0]] * 2)[:, :, None]
        >>> shift_and_stitch(halve, x, 2)[0, :, 0].tolist()
        [5.0, 5.0, 4.0, 4.0]
    """
    x = jnp.asarray(x)
    strides = _per_axis(stride, 2, "stride", 1)
    if x.ndim < 3 or not _known(x.shape[-3:-1]):
        raise ValueError(
            f"x has the shape {x.shape}; it must be [*batch, height, width, channel], with numbers of at least 1 as "
            "height and width."
        )
    batch, (height, width, channels) = x.shape[:-3], x.shape[-3:]
    # Shift s - 1 - i: zeros before, and behind as many as make the net's map one cell larger.
    border = [(0, 0, 0)] * len(batch) + [(s - 1, s, 0) for s in strides] + [(0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), border)

    def one(shift: Array) -> Array:
        start = (*(0,) * len(batch), shift[0], shift[1], 0)
        return net(lax.dynamic_slice(padded, start, (*batch, height + strides[0], width + strides[1], channels)))

    cells = jax.eval_shape(net, x).shape[-3:-1]
    shifts = np.array(list(np.ndindex(*strides)), np.int32)
    maps = lax.map(one, jnp.asarray(shifts))
    if maps.shape[-3:-1] != (cells[0] + 1, cells[1] + 1):
        raise ValueError(
            f"the net gives {cells} cells for the input {x.shape} and {maps.shape[-3:-1]} for one that is a stride of "
            f"{strides} larger; the second must be one more, so give the net's total stride."
        )
    # maps[sw * i + j] holds the positions stride * cell - (stride - 1 - i): interlaced they start at -(stride - 1).
    maps = jnp.moveaxis(maps, 0, -2)
    dense = depth_to_space(_reshape(maps, *maps.shape[:-2], math.prod(maps.shape[-2:])), strides)
    rows, columns = (slice(s - 1, s - 1 + s * n) for s, n in zip(strides, cells, strict=True))
    return dense[..., rows, columns, :]
