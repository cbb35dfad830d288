"""3x3 convolution with 16 products a channel where it takes 36: Winograd's F(2x2, 3x3) (Lavin & Gray 2016).

Each window of 4x4 cells gives 2x2 results. Window and kernel are transformed, multiplied number by number (a matrix
product over channels for each of the 16), and transformed back. The transforms only add, subtract and halve, so the
result is that of the direct sum up to rounding.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Row = Sequence[Array]


def winograd_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "3 3 in out"],
    padding: int,
    turned: bool = False,
) -> Float[Array, "batch rows columns features"]:
    """A 3x3 convolution with stride 1.

    Args:
        x: a map of `in` channels.
        kernel: of the convolution, not transformed.
        padding: zeros on each side.
        turned: take the kernel turned by 180 degrees, from `out` channels to `in`: the gradient of a convolution.
    """
    batch, height, width, ins = x.shape
    outs = kernel.shape[2 if turned else 3]
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    x = jnp.pad(x, ((0, 0), (padding, padding + rows % 2), (padding, padding + columns % 2), (0, 0)))
    tiles = (-(-rows // 2), -(-columns // 2))

    def cells(row: int, column: int) -> Array:
        """The cells at this place of all windows, which begin at every second cell."""
        last = (batch, row + 2 * tiles[0] - 1, column + 2 * tiles[1] - 1, ins)
        return lax.slice(x, (0, row, column, 0), last, (1, 2, 2, 1)).reshape(-1, ins)

    windows = _both_axes(_of_window, [[cells(row, column) for column in range(4)] for row in range(4)])
    order = (2, 1, 0) if turned else (0, 1, 2)
    kernels = _both_axes(_of_kernel, [[kernel[row, column] for column in order] for row in order])
    # Turned round in the product, which XLA does on the way; the kernel itself would be copied number by number.
    products = [
        [v @ (u.T if turned else u) for v, u in zip(*rows, strict=True)] for rows in zip(windows, kernels, strict=True)
    ]
    results = _both_axes(_of_product, products)
    results = [[y.reshape(batch, *tiles, outs) for y in row] for row in results]
    y = jnp.stack([jnp.stack(row, axis=3) for row in results], axis=2)
    return y.reshape(batch, 2 * tiles[0], 2 * tiles[1], outs)[:, :rows, :columns]


def _both_axes(transform: Callable[[Row], Row], grid: Sequence[Row]) -> list[Row]:
    """Transforms the rows of a grid of arrays, then its columns."""
    columns = zip(*(transform(row) for row in grid), strict=True)
    return list(zip(*(transform(column) for column in columns), strict=True))


def _of_window(d: Row) -> Row:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_kernel(g: Row) -> Row:
    ends, middle = (g[0] + g[2]) / 2, g[1] / 2
    return [g[0], ends + middle, ends - middle, g[2]]


def _of_product(m: Row) -> Row:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
