"""3x3 convolution with 16 products a channel where it takes 36: Winograd's F(2x2, 3x3) (Lavin & Gray 2016).

Each window of 4x4 cells gives 2x2 results. Window and kernel are transformed, multiplied number by number (a matrix
product over channels for each of the 16), and transformed back. The transforms only add, subtract and halve, so the
result is that of the direct sum up to rounding.

XLA compiles each loop as a function of its own, which takes time and memory, so there are few: the transform along rows
is done on one stacked array. Along columns the quarters of the windows are made and multiplied one after the other, so
that one quarter is there at a time.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# To four numbers, of each column of three: the paper's G.
_OF_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)


@partial(jax.jit, static_argnames=("padding", "turned"))  # traced once for all layers of one shape
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

    # The cells at one place of all windows, which begin at every second cell.
    lines = [lax.slice_in_dim(x, row, row + 2 * tiles[0] - 1, 2, axis=1) for row in range(4)]
    lines = lax.optimization_barrier(jnp.stack(_of_window(lines)))
    cells = [lax.slice_in_dim(lines, column, column + 2 * tiles[1] - 1, 2, axis=3) for column in range(4)]

    flat = kernel.reshape(9, -1)
    contracted = ((2,), (2 if turned else 1,))
    products = []
    for window, of_column in zip(_of_window(cells), _OF_KERNEL, strict=True):
        of_kernel = np.kron(_OF_KERNEL, of_column)
        kernels = jnp.asarray(of_kernel[:, ::-1] if turned else of_kernel) @ flat
        windows = window.reshape(4, -1, ins)
        product = lax.dot_general(windows, kernels.reshape(4, *kernel.shape[2:]), (contracted, ((0,), (0,))))
        products.append(product.reshape(4, batch, *tiles, outs))

    results = [_of_product(list(product)) for product in _of_product(products)]
    y = jnp.stack([jnp.stack(line, axis=3) for line in zip(*results, strict=True)], axis=2)
    return lax.optimization_barrier(y.reshape(batch, 2 * tiles[0], 2 * tiles[1], outs)[:, :rows, :columns])


def _of_window(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_product(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
