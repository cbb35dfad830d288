"""Convolution for CPUs as well: the same as `lax.conv_general_dilated`, several times as fast where XLA is slow.

On CPUs XLA computes the gradient of a kernel as another convolution, whose window is a whole feature map, at half the
rate of the forward one or less; and it leaves windows larger than the map, which deep layers have on small images, to a
plain loop. Both are also a matrix product: patches (what each window sees, side by side) times the kernel.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")
SMALL_MAP = 36  # cells up to which patches are the faster form of the convolution itself; measured on two cores
LARGE_PATCHES = 2**24  # numbers from which on the patches are made a row of the kernel at a time, to save memory


def conv_general_dilated(
    lhs: Float[ArrayLike, "batch height width in"],
    rhs: Float[ArrayLike, "rows columns in_of_a_group out"],
    window_strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = (1, 1),
    rhs_dilation: Any = (1, 1),
    dimension_numbers: Any = LAYOUT,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Float[Array, "batch rows_seen columns_seen out"]:
    """`lax.conv_general_dilated`, for the attribute of `nn.Conv` of that name; arguments and results are the same."""
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = {*lhs_dilation, *rhs_dilation, feature_group_count} == {1} and not isinstance(padding, str)
    plain &= lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
    if jax.default_backend() == "cpu" and plain and lhs.dtype.itemsize >= 4:
        return _conv(lhs, rhs, tuple(window_strides), tuple(map(tuple, padding)), precision)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        precision=precision,
    )


Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)
"""`nn.Conv` with it."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, strides: Any, padding: Any, precision: Any) -> Array:
    height, width = x.shape[1:3]
    if height * width <= SMALL_MAP or height < kernel.shape[0] or width < kernel.shape[1]:
        return _conv_of_patches(x, kernel, strides, padding, precision)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(strides: Any, padding: Any, precision: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_conv(dx, kernel, strides, padding, precision))
    if not isinstance(dkernel, SymbolicZero):
        # Only its transpose is ever computed in training: patches, transposed, times the gradient.
        terms.append(_conv_of_patches(x, dkernel, strides, padding, precision))
    return _conv(x, kernel, strides, padding, precision), functools.reduce(operator.add, terms)


def _conv_of_patches(x: Array, kernel: Array, strides: Any, padding: Any, precision: Any) -> Array:
    rows, columns, ins, outs = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = ((x.shape[i + 1] - kernel.shape[i]) // strides[i] + 1 for i in (0, 1))

    def seen(row: int, column: int) -> Array:
        last = (len(x), row + (height - 1) * strides[0] + 1, column + (width - 1) * strides[1] + 1, ins)
        return lax.slice(x, (0, row, column, 0), last, (1, *strides, 1))

    at_once = rows if len(x) * height * width * kernel[..., 0].size <= LARGE_PATCHES else 1
    # Split rather than indexed: the transpose of a split is a single concatenation.
    kernels = lax.split(kernel.reshape(-1, outs), (at_once * columns * ins,) * (rows // at_once))
    total = jnp.zeros((), x.dtype)
    for row, part in zip(range(0, rows, at_once), kernels, strict=True):
        patches = [seen(row + i, column) for i in range(at_once) for column in range(columns)]
        total += jnp.matmul(jnp.concatenate(patches, axis=-1), part, precision=precision)
    return total
