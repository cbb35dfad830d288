"""The methods of `conv_transpose`.

A transposed convolution is usually run as a convolution over an input with ``stride - 1`` zeros between its values.
Most of its products are then with zeros: all but one in ``stride ** 2``. The methods here insert none. Output position
``stride * q + r`` is in block q at phase r. The block decides which few inputs reach it, the phase which kernel taps
they meet. So all phases of all blocks are one matrix product: the inputs in reach (patches) times the kernel taps. Its
result is put in order by moving phases from channels to space.

A method is a function of

- x: ``[batch, *spatial, in]``,
- kernel: ``[*spatial, in / groups, out]``, mirrored as in `nn.ConvTranspose`,
- strides, low, sizes: per axis the stride, the crop at the low end, and the output's size,
- groups, precision.

It returns ``[batch, *sizes, out]``.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from .backend import is_cpu
from .depth_to_space import depth_to_space
from .sizes import reshape


def _convolve_dilated(x, kernel, strides, low, sizes, groups, precision):
    """Run an ordinary convolution over the input with inserted zeros."""
    axes = len(strides)
    # The convolution gives full[begin : end], chosen so that its padding and that of its gradient lie between 0 and
    # k - 1. With a negative padding XLA's CPU backend reads beyond its arrays (openxla/xla issue 48713).
    pads, border = [], []
    for n, k, s, a, out in zip(x.shape[1:-1], kernel.shape, strides, low, sizes, strict=False):
        full = (n - 1) * s + k
        begin, after = min(max(a, 0), k - 1), min(max(full - a - out, 0), k - 1)
        pads.append((k - 1 - begin, k - 1 - after))
        border.append((begin - a, a + out - (full - after), 0))
    inserted = strides
    if is_cpu() and math.prod(strides) > 1:
        # XLA's CPU compiler aborts on some gradients of dilated inputs, because it swaps the convolution's operands.
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


def _blockwise(x, kernel, strides, low, sizes, groups, precision, *, multiply, inserted=0):
    """Compute the output in blocks of one stride.

    ``full[stride * q + r] = sum_t x[q - t] @ mirrored[stride * t + r]`` for block q and phase r. `multiply` computes
    the sum for all blocks and phases. Between the values of the last spatial axis of x there are `inserted` zeros.
    """
    axes = len(strides)
    taps = tuple(-(-k // s) for k, s in zip(kernel.shape, strides, strict=False))  # values of t
    lengths = (*x.shape[1:-2], (x.shape[-2] - 1) * (inserted + 1) + 1)
    spatial = tuple(zip(lengths, taps, strides, low, sizes, strict=True))
    # Blocks first <= q < last hold some of the output. The rest of the output lies beyond the full output and is zero.
    first = tuple(min(max(a // s, 0), n + t - 1) for n, t, s, a, _ in spatial)
    last = tuple(
        min(max(-(-(a + out) // s), f), n + t - 1) for f, (n, t, s, a, out) in zip(first, spatial, strict=True)
    )

    # The inputs that reach these blocks: x[first - taps + 1 : last], with zeros beyond its ends.
    pads = [(t - 1 - f, q - n, 0) for f, q, (n, t, _, _, _) in zip(first, last, spatial, strict=True)]
    pads[-1] = (*pads[-1][:2], inserted)

    # Taps as [groups, *tap, in, *phase, out]: the mirrored kernel, its taps in the order of the inputs in a patch. The
    # last axis stays the last, so that whole lines of memory are moved.
    fill = [(t * s - k, 0, 0) for t, s, k in zip(taps, strides, kernel.shape, strict=False)]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*fill, (0, 0, 0), (0, 0, 0)])
    split = [v for pair in zip(taps, strides, strict=True) for v in pair]
    kernel = kernel.reshape(*split, kernel.shape[-2], groups, -1)
    kernel = lax.rev(kernel, range(1, 2 * axes, 2))
    kernel = kernel.transpose(2 * axes + 1, *range(0, 2 * axes, 2), 2 * axes, *range(1, 2 * axes, 2), 2 * axes + 2)
    blocks = tuple(q - f for q, f in zip(last, first, strict=True))
    y = multiply(x, pads, kernel, blocks, taps, precision)  # [batch, *blocks, *phase, out]
    y = depth_to_space(reshape(y, *y.shape[: axes + 1], math.prod(y.shape[axes + 1 :])), strides)

    zero = jnp.zeros((), y.dtype)  # a negative pad crops
    pads = [(f * s - a, a + out - q * s, 0) for f, q, (_, _, s, a, out) in zip(first, last, spatial, strict=True)]
    return lax.pad(y, zero, [(0, 0, 0), *pads, (0, 0, 0)])


def _multiply_patches(x, pads, kernel, blocks, taps, precision):
    """Write the patches out and multiply them with the taps once."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    groups, ins = kernel.shape[0], kernel.shape[len(taps) + 1]
    windows = [tuple(slice(t, t + q) for t, q in zip(tap, blocks, strict=True)) for tap in np.ndindex(*taps)]
    shape, outs = (x.shape[0], *blocks), kernel.shape[len(taps) + 2 :]
    if groups == 1:
        patches = jnp.concatenate([x[:, *window] for window in windows], axis=-1)
        kernel = kernel.reshape(-1, math.prod(outs))
        if is_cpu():
            # A matrix product written as a convolution without spatial axes. XLA turns it into the same product, but
            # its kernel's gradient is patches' @ cotangent. That of `dot_general` is cotangent' @ patches, for which
            # XLA's CPU backend first copies the large cotangent into another order.
            rows = lax.ConvDimensionNumbers((0, 1), (1, 0), (0, 1))
            patches = reshape(patches, math.prod(shape), patches.shape[-1])
            y = lax.conv_general_dilated(patches, kernel, (), (), dimension_numbers=rows, precision=precision)
        else:
            y = lax.dot_general(patches, kernel, (((patches.ndim - 1,), (0,)), ((), ())), precision=precision)
        return reshape(y, *shape, *outs)
    patches = jnp.stack([reshape(x[:, *window], *shape, groups, ins) for window in windows], axis=-2)
    kernel = kernel.reshape(groups, -1, ins, math.prod(outs))
    n = patches.ndim
    dims = (((n - 2, n - 1), (1, 2)), ((n - 3,), (0,)))
    y = lax.dot_general(patches, kernel, dims, precision=precision)  # [groups, *shape, outs]
    y = jnp.moveaxis(y, 0, -2)  # [*shape, groups, outs]
    y = jnp.moveaxis(reshape(y, *shape, groups, *outs), len(shape), -2)
    return reshape(y, *y.shape[:-2], groups * outs[-1])


def _convolve_patches(x, pads, kernel, blocks, taps, precision):
    """Run an ordinary convolution, which gathers the patches itself."""
    *_, (before, after, inserted) = pads
    if inserted and not is_cpu():  # see `_convolve_dilated`; on CPUs the zeros are written
        pads = [*pads[:-1], (0, 0, 0)]
    else:
        before = after = inserted = 0
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
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
        [*[(0, 0)] * (axes - 1), (before, after)],
        lhs_dilation=(*(1,) * (axes - 1), inserted + 1),
        dimension_numbers=lax.ConvDimensionNumbers(spec, (channel, axes, *range(axes)), spec),
        feature_group_count=groups,
        precision=precision,
    )
    y = jnp.moveaxis(reshape(y, x.shape[0], *blocks, groups, *outs), axes + 1, -2)
    return reshape(y, *y.shape[:-2], groups * outs[-1])


def _convolve_rows(x, kernel, strides, low, sizes, groups, precision):
    """Run a convolution whose phases are those of all axes but the last, over an input with zeros along that one.

    TPUs pad the last axis of an array to 128 values. With phases in both axes the few classes come last in the result,
    in the copies that put it in order, and in the loss, and are padded to 128. Here the columns come out of the
    convolution in order, and XLA puts them last.
    """
    strides, inserted = (*strides[:-1], 1), strides[-1] - 1
    return _blockwise(x, kernel, strides, low, sizes, groups, precision, multiply=_convolve_patches, inserted=inserted)


METHODS = {
    "matmul": functools.partial(_blockwise, multiply=_multiply_patches),
    "conv": functools.partial(_blockwise, multiply=_convolve_patches),
    "rows": _convolve_rows,
    "plain": _convolve_dilated,
    "dilated": _convolve_dilated,
}
