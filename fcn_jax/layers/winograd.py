"""3x3 convolution by Winograd's minimal filtering (Lavin & Gray 2016).

F(m x m, 3x3) computes m x m results from each window of n x n cells, n = m + 2. Window and kernel are transformed,
multiplied value by value (a matrix product over channels for each of the n x n values), and transformed back. The
transforms evaluate and interpolate polynomials at n points, one of which is infinity. The result equals the direct sum
up to rounding, with 16 products instead of 36 for m = 2 and 36 instead of 144 for m = 4.

For the gradient of the kernel, windows and the result's gradient are transformed, multiplied (a matrix product over
windows) and transformed to 3x3 values.

XLA compiles each loop as a function of its own, which takes time and memory, so there are few loops: the transform
along rows works on one stacked array. The n columns of a window are made and multiplied one after the other, so that
one of them is in memory at a time.
"""

from collections.abc import Iterable, Sequence
from functools import cache, partial, reduce
from operator import add
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
T = TypeVar("T", Array, np.ndarray)

# The points without infinity: 0 and pairs of opposite points. For m = 4 the points 0, 1, -1, 2 and -2 are usual. The
# points here contain each other's reciprocals and have a third of the rounding error of the usual ones: with 512
# channels 2e-6 of the largest result with AVX-512, 3.3e-6 with AVX2. m = 2 has 6e-7 and 8e-7.
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 2**-0.5, -(2**-0.5), 2**0.5, -(2**0.5))}

# Transforming the kernel takes as long as the products of this many windows, as measured on two AVX2 cores.
_WINDOWS_OF_A_KERNEL = 175


def choose_tile(batch: int, rows: int, columns: int) -> Literal[2, 4]:
    """Choose the m of F(m x m, 3x3) that needs less work for `batch` results of `rows` x `columns`."""

    def count_products(tile: int) -> int:
        """Count the products for each pair of channels."""
        windows = batch * -(-rows // tile) * -(-columns // tile)
        return (tile + 2) ** 2 * (windows + _WINDOWS_OF_A_KERNEL)

    return 2 if count_products(2) <= count_products(4) else 4


def add_and_subtract_pairs(values: Iterable[T]) -> list[T]:
    """Replace values a and b of each pair of points by a + b and a - b; keep the first and the last value."""
    first, *pairs, last = values
    combined = [value for a, b in zip(pairs[::2], pairs[1::2], strict=True) for value in (a + b, a - b)]
    return [first, *combined, last]


@cache
def make_transforms(tile: Literal[2, 4]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the matrices of F(tile, 3).

    With them y = A s((G k) * s(B d)) is the convolution of n = tile + 2 cells d with 3 kernel taps k. The function s is
    `add_and_subtract_pairs`: the values of a polynomial at opposite points have the same even and odd parts, which B
    computes once, and so do the columns of A.

    Args:
        tile: results of a window, the m of F(m, 3).

    Returns:
        A, float32[tile, n], for results; G, float32[n, 3], for kernels; B, float32[n, n], for windows.
    """
    points = np.array(_POINTS[tile])

    def make_powers(count: int) -> np.ndarray:
        return np.vstack([points[:, None] ** np.arange(count), np.eye(count)[-1]])

    # A convolution is the transpose of a product of polynomials (Toom and Cook). Each point's scale may be in either
    # transform: the last nonzero value of each row of B is made 1, and G has the divisor.
    for_windows = np.linalg.inv(make_powers(tile + 2)).T
    scale = np.append(for_windows[:-1, -2], for_windows[-1, -1])
    parts = np.linalg.inv(add_and_subtract_pairs(np.eye(tile + 2)))
    matrices = make_powers(tile).T @ parts, make_powers(3) * scale[:, None], parts @ (for_windows / scale[:, None])
    # Rounding makes zeros exact, and `_multiply` leaves zeros out.
    for_results, for_kernels, for_windows = (matrix.round(12).astype(np.float32) for matrix in matrices)
    return for_results, for_kernels, for_windows


@partial(jax.jit, static_argnames=("padding", "rotate"))  # traced once for all layers of one shape
def winograd_conv(x: Array, kernel: Array, padding: int, rotate: bool = False) -> Array:
    """Compute a 3x3 convolution with stride 1.

    Args:
        x: ``[batch, height, width, in]``; if `rotate`, ``[batch, height, width, out]``.
        kernel: ``[3, 3, in, out]``, not transformed.
        padding: zeros on each side.
        rotate: rotate the kernel by 180 degrees and use it from `out` channels to `in`. This is the convolution that
            computes the gradient of the map.

    Returns:
        ``[batch, rows, columns, out]``; if `rotate`, ``[batch, rows, columns, in]``.
    """
    batch, height, width, _ = x.shape
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    tile, down, across = _choose_tiling(batch, rows, columns)
    for_results, for_kernels, _ = make_transforms(tile)
    flat = kernel.reshape(9, -1)
    contracted = ((2,), (2 if rotate else 1,))
    products = []
    for window, for_column in zip(_transform_windows(x, padding, tile, down, across), for_kernels, strict=True):
        for_rows_and_column = np.kron(for_kernels, for_column)
        kernels = jnp.asarray(for_rows_and_column[:, ::-1] if rotate else for_rows_and_column) @ flat
        product = lax.dot_general(window, kernels.reshape(-1, *kernel.shape[2:]), (contracted, ((0,), (0,))))
        product = product.reshape(-1, batch, down, across, kernel.shape[2 if rotate else 3])
        products.append(lax.optimization_barrier(jnp.stack(_transform_back(for_results, product))))

    # Columns are transformed one after the other for all tiles. If they were transformed side by side, the code to
    # compile would be many times as long.
    y = jnp.moveaxis(jnp.stack(_transform_back(for_results, products), axis=4), 0, 2)
    # The crop comes after the barrier, so that it is fused with the reader of the result. In front it would be a copy.
    return lax.optimization_barrier(y.reshape(batch, tile * down, tile * across, -1))[:, :rows, :columns]


@partial(jax.jit, static_argnames="padding")
def winograd_kernel_gradient(x: Array, gradient: Array, padding: int) -> Array:
    """Compute the gradient of `winograd_conv` with respect to its kernel.

    Args:
        x: ``[batch, height, width, in]``, the map that was convolved.
        gradient: ``[batch, rows, columns, out]``, the gradient with respect to the result.
        padding: zeros on each side of `x`.

    Returns:
        ``[3, 3, in, out]``.
    """
    batch, rows, columns, outs = gradient.shape
    tile, down, across = _choose_tiling(batch, rows, columns)
    for_results, for_kernels, _ = make_transforms(tile)
    gradient = jnp.pad(gradient, ((0, 0), (0, tile * down - rows), (0, tile * across - columns), (0, 0)))
    gradient = gradient.reshape(batch, down, tile, across, tile, outs)
    lines = [gradient[:, :, line] for line in range(tile)]
    lines = lax.optimization_barrier(jnp.stack(_transform(for_results.T, lines)))
    cells = [lines[:, :, :, :, cell] for cell in range(tile)]

    parts = []
    columns_of = _transform_windows(x, padding, tile, down, across), _transform(for_results.T, cells)
    for window, result, for_column in zip(*columns_of, for_kernels, strict=True):
        products = lax.dot_general(window, result.reshape(tile + 2, -1, outs), (((1,), (1,)), ((0,), (0,))))
        parts.append(jnp.asarray(np.kron(for_kernels, for_column).T) @ products.reshape(tile + 2, -1))
    # Without the barrier each layer's parts would be kept for the optimizer's loop.
    return lax.optimization_barrier(reduce(add, parts)).reshape(3, 3, -1, outs)


def _transform_windows(x: Array, padding: int, tile: Literal[2, 4], down: int, across: int) -> list[Array]:
    """Transform all windows of a map, `down` times `across`, to n columns of ``[n, windows, channels]``."""
    _, height, width, channels = x.shape
    more = [tile * count + 2 - padding - side for count, side in ((down, height), (across, width))]
    x = jnp.pad(x, ((0, 0), (padding, more[0]), (padding, more[1]), (0, 0)))
    _, _, for_windows = make_transforms(tile)
    # Windows begin at every second or fourth cell, so the cells at one place of all windows are a slice with a stride.
    places = range(tile + 2)
    lines = [lax.slice_in_dim(x, place, place + tile * (down - 1) + 1, tile, axis=1) for place in places]
    lines = lax.optimization_barrier(jnp.stack(_transform(for_windows, lines)))
    cells = [lax.slice_in_dim(lines, place, place + tile * (across - 1) + 1, tile, axis=3) for place in places]
    return [column.reshape(tile + 2, -1, channels) for column in _transform(for_windows, cells)]


def _choose_tiling(batch: int, rows: int, columns: int) -> tuple[Literal[2, 4], int, int]:
    """Choose the tile for results of this size, and count the tiles that cover them, down and across."""
    tile = choose_tile(batch, rows, columns)
    return tile, -(-rows // tile), -(-columns // tile)


def _transform(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Transform by B, or by the transpose of A: to values at the points."""
    return add_and_subtract_pairs(_multiply(matrix, arrays))


def _transform_back(matrix: np.ndarray, values: Iterable[Array]) -> list[Array]:
    """Transform by A: from values at the points to results."""
    return _multiply(matrix, add_and_subtract_pairs(values))


def _multiply(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Multiply a matrix with a column of arrays."""

    def add_weighted(row: list[float]) -> Array:
        terms = [(factor, array) for factor, array in zip(row, arrays, strict=True) if factor]
        return reduce(add, [array if factor == 1 else factor * array for factor, array in terms])

    return [add_weighted(row) for row in matrix.tolist()]
