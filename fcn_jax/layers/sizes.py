"""Sizes of transposed convolutions, and the reading of array, size, stride and padding arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

Array = jax.Array
ArrayLike = jax.Array | np.ndarray
Ints = int | Sequence[int] | np.ndarray
Padding = str | int | Sequence[int | Sequence[int]] | np.ndarray


# ------------------------------------------------------------------------------------------ size arithmetic


def conv_transpose_size(
    n: Ints, kernel: Ints, stride: Ints, padding: Padding = 0, output_padding: Ints = 0
) -> int | tuple[int, ...]:
    """Compute the output size of a transposed convolution.

    The formula is ``(n - 1) * stride - 2 * padding + kernel + output_padding``.

    Args:
        n: input size, at least 1.
        kernel: kernel size.
        stride: upsampling factor.
        padding: as in `conv_transpose`. With a (low, high) pair, ``low + high`` replaces ``2 * padding``.
        output_padding: values added at the high end, fewer than the stride.

    Returns:
        The size. It is a tuple with one size per axis if any argument has one value per axis.

    Raises:
        ValueError: the arguments have different numbers of axes, a size or stride is below 1, an output padding is not
            less than the stride, or no output is left.

    Examples:
        >>> conv_transpose_size(16, kernel=64, stride=32, padding=16)
        512
        >>> conv_transpose_size((4, 5), kernel=3, stride=2, padding=1, output_padding=(1, 0))
        (8, 9)
    """
    given = map(to_lists, (n, kernel, stride, padding, output_padding))
    several = [v for v in given if not is_int(v) and not isinstance(v, str)]
    axes = count_axes(several[0], 1) if several else 1
    n = read_ints(n, axes, "n", 1)
    kernel = read_ints(kernel, axes, "kernel", 1)
    stride = read_ints(stride, axes, "stride", 1)
    output_padding = read_ints(output_padding, axes, "output_padding", 0)
    sizes = compute_output_sizes(n, kernel, stride, read_crops(padding, kernel, stride), output_padding)
    return sizes if several else sizes[0]


def conv_transpose_padding(kernel: Ints, stride: Ints) -> tuple[int, int] | tuple[tuple[int, ...], tuple[int, ...]]:
    """Compute the padding and output padding with which a transposed convolution gives exactly ``stride * n``.

    This is the inverse of `conv_transpose_size`: it solves ``kernel - 2 * padding + output_padding = stride`` with an
    output padding of 0 or 1. The padding is negative if ``kernel < stride - 1``; PyTorch has no negative padding.

    Args:
        kernel: kernel size.
        stride: upsampling factor.

    Returns:
        Padding and output padding. Each has one value per axis if kernel or stride has one value per axis.

    Raises:
        ValueError: an even kernel with stride 1, for which no integer padding keeps the input's size; different numbers
            of axes; or values below 1.

    Examples:
        >>> conv_transpose_padding(64, 32)
        (16, 0)
        >>> conv_transpose_padding((4, 3), 2)
        ((1, 1), (0, 1))
    """
    axes = max(count_axes(kernel, 1), count_axes(stride, 1))
    sizes, strides = read_ints(kernel, axes, "kernel", 1), read_ints(stride, axes, "stride", 1)
    for k, s in zip(sizes, strides, strict=True):
        if s == 1 and k % 2 == 0:
            raise ValueError(
                f"kernel {k} with stride 1 has no integer padding that keeps the size: choose an odd kernel, or the "
                f"pair padding ({k // 2 - 1}, {k // 2})."
            )
    extra = tuple((k - s) % 2 for k, s in zip(sizes, strides, strict=True))
    padding = tuple((k - s + e) // 2 for k, s, e in zip(sizes, strides, extra, strict=True))
    return (padding[0], extra[0]) if is_int(kernel) and is_int(stride) else (padding, extra)


def compute_output_sizes(n, kernel, strides, crops, output_padding) -> tuple[Any, ...]:
    """Compute `conv_transpose_size` on every axis, from crops as `read_crops` returns them."""
    if any(extra >= s for extra, s in zip(output_padding, strides, strict=True)):
        raise ValueError(
            f"output_padding is {output_padding} with the strides {strides}; it must be smaller than the stride. To "
            "extend the output further, give a negative high padding: padding=((low, -high), ...)."
        )
    spatial = zip(n, kernel, strides, crops, output_padding, strict=True)
    sizes = tuple((a - 1) * s + k - sum(crop) + extra for a, k, s, crop, extra in spatial)
    if not are_positive(sizes):
        raise ValueError(
            f"the output would have the size {sizes}: input {n}, kernel {kernel}, strides {strides}, padding {crops} "
            "crop more than there is; every size must be at least 1, so lower the padding or give a larger input."
        )
    return sizes


# ----------------------------------------------------------------------------------------- reading arguments


def read_array(value: Any, name: str, layout: str) -> Array:
    """Read an argument as an array.

    Args:
        value: the argument.
        name: the argument's name, for errors.
        layout: the axes that it should have, for errors.

    Raises:
        ValueError: the value is nothing that JAX makes an array of, such as a text or lists of different lengths.
    """
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is of type {type(value).__name__}; it must be one array, {layout}.") from error


def check_operands(x: Array, kernel: Array, groups: Any, groups_name: str) -> None:
    """Check that types and channels of an input ``[..., in]`` fit a kernel ``[..., in / groups, out]``.

    Raises:
        ValueError: they do not fit, or the groups do not divide the outputs.
    """
    if not jnp.issubdtype(x.dtype, jnp.inexact) or x.dtype != kernel.dtype:
        raise ValueError(f"x is {x.dtype} and the kernel {kernel.dtype}; cast both to one floating-point dtype.")
    ins, outs = kernel.shape[-2:]
    if not is_int(groups) or min(groups, ins, outs) < 1 or ins * groups != x.shape[-1] or outs % groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels, the kernel {ins} in and {outs} out, with {groups_name} {groups}; the "
            "channels of x must be the kernel's times the groups, the groups must divide the outputs, and each must "
            "be at least 1."
        )


def is_int(value: Any) -> bool:
    """Return whether a value is an integer of Python or NumPy; truth values are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def to_lists(value: Any) -> Any:
    """Convert a NumPy array to an int or to (nested) lists of ints; return everything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def count_axes(value: Any, axes_of_an_int: int) -> int:
    """Count the axes that an argument with one entry per axis describes."""
    value = to_lists(value)
    return max(len(value), 1) if isinstance(value, Sequence) else axes_of_an_int


def read_ints(value: Any, axes: int, name: str, least: int | None = None) -> tuple[int, ...]:
    """Read an int, or one int per axis, as one int per axis.

    Args:
        value: the argument.
        axes: number of axes.
        name: the argument's name, for errors.
        least: smallest value allowed.

    Raises:
        ValueError: the value is something else, or an int is below `least`.
    """
    value = to_lists(value)
    values = (value,) * axes if is_int(value) else tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) != axes or not all(is_int(v) for v in values):
        raise ValueError(
            f"{name} is {value!r}; it must be an integer{f' or {axes} integers, one per spatial axis' * (axes > 1)}."
        )
    if least is not None and min(values) < least:
        raise ValueError(f"{name} is {value!r}; the smallest value allowed is {least}.")
    return tuple(int(v) for v in values)


def read_pairs(padding: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Read a padding, which is an int, or an int or a (low, high) pair per axis, as a pair per axis.

    Raises:
        ValueError: the padding is something else.
    """
    padding = to_lists(padding)
    values = (padding,) * axes if is_int(padding) else padding
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == axes:
        pairs = tuple((v, v) if is_int(v) else v for v in values)
        if all(isinstance(v, Sequence) and len(v) == 2 and all(map(is_int, v)) for v in pairs):
            return tuple((int(low), int(high)) for low, high in pairs)
    raise ValueError(
        f"padding is {padding!r}; for {axes} spatial axes it must be 'SAME', 'VALID', an integer, or {axes} entries, "
        "each an integer or a (low, high) pair; for a pair on a single axis write ((low, high),)."
    )


def read_crops(padding: Padding, kernel: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Read the padding of a transposed convolution as the values to crop off both ends of its full output.

    The full output has ``(n - 1) * stride + kernel`` values per axis. A negative crop adds zeros instead.

    Returns:
        A (low, high) pair per axis.
    """
    padding = to_lists(padding)
    if padding == "VALID":  # the full output, and at least stride * n
        return tuple((0, min(0, k - s)) for k, s in zip(kernel, strides, strict=True))
    if padding == "SAME":  # exactly stride * n; if the crop is odd, the high end loses one value more
        low = [max(0, (k - s) // 2) for k, s in zip(kernel, strides, strict=True)]
        return tuple((a, k - s - a) for a, k, s in zip(low, kernel, strides, strict=True))
    return read_pairs(padding, len(kernel))


def check_method(method: str, methods: Iterable[str]) -> None:
    """Check that an operation has a method of this name.

    Raises:
        ValueError: it has none.
    """
    methods = tuple(methods)
    if method not in methods:
        raise ValueError(f"method is {method!r}; it must be None or one of {', '.join(methods)}.")


def are_known(sizes: Sequence[Any]) -> bool:
    """Return whether all sizes are integers of at least 1 and none is a symbol of `jax.export`."""
    return all(is_int(n) and n >= 1 for n in sizes)


def are_positive(sizes: Sequence[Any]) -> bool:
    """Return whether all sizes are at least 1, also for whatever their symbols of `jax.export` stand for."""
    try:
        return all(n >= 1 for n in sizes)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def reshape(x: Array, *shape: Any) -> Array:
    """Reshape an array; an axis 0 that is split over a mesh with explicit axes stays split."""
    first, *others = (*jax.typeof(x).sharding.spec, None)
    if first is None or any(others):
        return x.reshape(shape)
    return jnp.reshape(x, shape, out_sharding=PartitionSpec(first, *(None,) * (len(shape) - 1)))
