"""3x3 convolution with a half or a quarter of the products: Winograd's minimal filtering (Lavin & Gray 2016).

F(m x m, 3x3) makes m x m results of each window of n x n cells, n = m + 2. Window and kernel are transformed,
multiplied number by number (a matrix product over channels for each of the n x n), and transformed back: polynomials
are multiplied by their values at n points, infinity among them. The result is that of the direct sum up to rounding.
For a kernel's gradient, windows and the result's gradient are transformed, multiplied (a matrix product over windows)
and transformed to 3x3 numbers.

XLA compiles each loop as a function of its own, which takes time and memory, so there are few: the transform along rows
is done on one stacked array. Along columns the windows are made and multiplied one of the n after the other, so that
one is there at a time.
"""

from collections.abc import Iterable, Sequence
from functools import cache, partial, reduce
from operator import add
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

T = TypeVar("T", Array, np.ndarray)

# The points but for infinity: 0 and pairs. For tiles of four 0, 1, -1, 2 and -2 are usual; these, whose reciprocals are
# among them, have a third of the error: with 512 channels 2e-6 of the largest result, where tiles of two have 6e-7.
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 2**-0.5, -(2**-0.5), 2**0.5, -(2**0.5))}


def best_tile(batch: int, rows: int, columns: int) -> Literal[2, 4]:
    """The m of F(m x m, 3x3) that is less work for `batch` results of this size."""

    def work(tile: int) -> int:
        # Products for each pair of channels. Transforming the kernel counts as 175 windows, as measured on two cores.
        return (tile + 2) ** 2 * (batch * -(-rows // tile) * -(-columns // tile) + 175)

    return 2 if work(2) <= work(4) else 4


def sums_and_differences(numbers: Iterable[T]) -> list[T]:
    """Numbers a and b of a pair of points become a + b and a - b; the first and the last number stay as they are."""
    first, *pairs, last = numbers
    both = [number for a, b in zip(pairs[::2], pairs[1::2], strict=True) for number in (a + b, a - b)]
    return [first, *both, last]


@cache
def transforms(tile: Literal[2, 4]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of F(tile, 3): y = A s((G k) * s(B d)) is the convolution of n = tile + 2 cells d with 3 numbers k.

    s is `sums_and_differences`: the values of a polynomial at a point and at its opposite share their even and odd
    parts, which B computes once; A's columns likewise.

    Args:
        tile: results of a window.

    Returns:
        A, float32[tile, n], G, float32[n, 3], and B, float32[n, n].
    """
    points = np.array(_POINTS[tile])

    def powers(count: int) -> np.ndarray:
        return np.vstack([points[:, None] ** np.arange(count), np.eye(count)[-1]])

    # A convolution is the transpose of a product of polynomials (Toom and Cook). The scale of a point may stand in
    # either transform: the last number of each row that is not 0 is made 1, by a division that goes to G.
    of_window = np.linalg.inv(powers(tile + 2)).T
    scale = np.append(of_window[:-1, -2], of_window[-1, -1])
    parts = np.linalg.inv(sums_and_differences(np.eye(tile + 2)))
    matrices = powers(tile).T @ parts, powers(3) * scale[:, None], parts @ (of_window / scale[:, None])
    # Rounded, because a sum leaves out what is exactly 0.
    of_result, of_kernel, of_window = (matrix.round(12).astype(np.float32) for matrix in matrices)
    return of_result, of_kernel, of_window


@partial(jax.jit, static_argnames=("padding", "turned"))  # traced once for all layers of one shape
def winograd_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 in out"],
    padding: int,
    turned: bool = False,
) -> Float[Array, "batch rows columns features"]:
    """A 3x3 convolution with stride 1.

    Args:
        x: a map of `in` channels, of `out` if `turned`.
        kernel: of the convolution, not transformed.
        padding: zeros on each side.
        turned: take the kernel turned by 180 degrees, from `out` channels to `in`: a convolution's gradient in its map.
    """
    batch, height, width, _ = x.shape
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    tile, down, across = _tiling(batch, rows, columns)
    of_result, of_kernel, _ = transforms(tile)
    flat = kernel.reshape(9, -1)
    contracted = ((2,), (2 if turned else 1,))
    products = []
    for window, of_column in zip(_windows(x, padding, tile, down, across), of_kernel, strict=True):
        of_both = np.kron(of_kernel, of_column)
        kernels = jnp.asarray(of_both[:, ::-1] if turned else of_both) @ flat
        product = lax.dot_general(window, kernels.reshape(-1, *kernel.shape[2:]), (contracted, ((0,), (0,))))
        product = product.reshape(-1, batch, down, across, kernel.shape[2 if turned else 3])
        products.append(lax.optimization_barrier(jnp.stack(_from_values(of_result, product))))

    # One after the other the columns of all tiles' lines; side by side they would be many times the code to compile.
    y = jnp.moveaxis(jnp.stack(_from_values(of_result, products), axis=4), 0, 2)
    # What reads the result cuts it; a barrier behind the cut would have it copied.
    return lax.optimization_barrier(y.reshape(batch, tile * down, tile * across, -1))[:, :rows, :columns]


@partial(jax.jit, static_argnames="padding")
def winograd_kernel_gradient(
    x: Float[Array, "batch height width in"], gradient: Float[Array, "batch rows columns out"], padding: int
) -> Float[Array, "3 3 in out"]:
    """The gradient of `winograd_conv` in its kernel.

    Args:
        x: the map that was convolved.
        gradient: in the convolution's result.
        padding: zeros on each side of `x`.
    """
    batch, rows, columns, outs = gradient.shape
    tile, down, across = _tiling(batch, rows, columns)
    of_result, of_kernel, _ = transforms(tile)
    gradient = jnp.pad(gradient, ((0, 0), (0, tile * down - rows), (0, tile * across - columns), (0, 0)))
    gradient = gradient.reshape(batch, down, tile, across, tile, outs)
    lines = [gradient[:, :, line] for line in range(tile)]
    lines = lax.optimization_barrier(jnp.stack(_values(of_result.T, lines)))
    cells = [lines[:, :, :, :, cell] for cell in range(tile)]

    parts = []
    windows = _windows(x, padding, tile, down, across), _values(of_result.T, cells)
    for window, result, of_column in zip(*windows, of_kernel, strict=True):
        products = lax.dot_general(window, result.reshape(tile + 2, -1, outs), (((1,), (1,)), ((0,), (0,))))
        parts.append(jnp.asarray(np.kron(of_kernel, of_column).T) @ products.reshape(tile + 2, -1))
    # Behind a barrier, or each layer's parts would be kept for the optimizer's loop.
    return lax.optimization_barrier(reduce(add, parts)).reshape(3, 3, -1, outs)


def _windows(x: Array, padding: int, tile: Literal[2, 4], down: int, across: int) -> list[Array]:
    """All `down` times `across` windows of a map, transformed: n columns of float[n, windows, channels]."""
    _, height, width, channels = x.shape
    more = [tile * count + 2 - padding - side for count, side in ((down, height), (across, width))]
    x = jnp.pad(x, ((0, 0), (padding, more[0]), (padding, more[1]), (0, 0)))
    _, _, of_window = transforms(tile)
    # The cells at one place of all windows, which begin at every second or fourth cell.
    places = range(tile + 2)
    lines = [lax.slice_in_dim(x, place, place + tile * (down - 1) + 1, tile, axis=1) for place in places]
    lines = lax.optimization_barrier(jnp.stack(_values(of_window, lines)))
    cells = [lax.slice_in_dim(lines, place, place + tile * (across - 1) + 1, tile, axis=3) for place in places]
    return [column.reshape(tile + 2, -1, channels) for column in _values(of_window, cells)]


def _tiling(batch: int, rows: int, columns: int) -> tuple[Literal[2, 4], int, int]:
    """The tile for results of this size, and how many of them cover it, down and across."""
    tile = best_tile(batch, rows, columns)
    return tile, -(-rows // tile), -(-columns // tile)


def _values(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Transformed by B, or by A's transpose: a point and its opposite share their even and odd parts."""
    return sums_and_differences(_times(matrix, arrays))


def _from_values(matrix: np.ndarray, values: Iterable[Array]) -> list[Array]:
    """Transformed back, by A."""
    return _times(matrix, sums_and_differences(values))


def _times(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """The product of a matrix and a column of arrays."""

    def weighted_sum(row: list[float]) -> Array:
        terms = [(factor, array) for factor, array in zip(row, arrays, strict=True) if factor]
        return reduce(add, [array if factor == 1 else factor * array for factor, array in terms])

    return [weighted_sum(row) for row in matrix.tolist()]
