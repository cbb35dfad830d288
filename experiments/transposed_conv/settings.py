"""Ways to upsample by a whole factor: the transposed convolutions that give exactly x s, and what they compete with.

Everything here is one axis, in float64, from definitions: a bilinear transposed convolution is the same on both axes.
"""

from typing import NamedTuple

import numpy as np

from fcn_jax.layers import bilinear_kernel, conv_transpose_size


class Setting(NamedTuple):
    """A transposed convolution, named as PyTorch and the article name its numbers."""

    kernel: int
    stride: int
    padding: int
    output_padding: int = 0

    def __str__(self) -> str:
        extra = f" op{self.output_padding}" if self.output_padding else ""
        return f"k{self.kernel} s{self.stride} p{self.padding}{extra}"


def even(factor: int) -> Setting:
    """Kernel 2s: the article's (a), k4 s2 p1 and k16 s8 p4; the paper's own for VGG."""
    return Setting(2 * factor, factor, factor // 2)


def tiled(factor: int) -> Setting:
    """Kernel = stride: the article's (b), k2 s2 p0 and k8 s8 p0. No two inputs meet in an output."""
    return Setting(factor, factor, 0)


def odd(factor: int) -> Setting:
    """Kernel 2s - 1: k3 s2 p1 op1. What is aligned for ResNets, whose cells lie on pixels and not between them."""
    return Setting(2 * factor - 1, factor, factor - 1, factor - 1)


def exact_settings(factor: int) -> list[Setting]:
    """All that turn n cells into exactly factor * n, with a bilinear filter's kernel: 1 to 2 factor.

    As in PyTorch padding is at most kernel - 1 and output padding at most stride - 1.
    """
    settings = [
        Setting(kernel, factor, padding, factor - kernel + 2 * padding)
        for kernel in range(1, 2 * factor + 1)
        for padding in range(kernel)
        if 0 <= factor - kernel + 2 * padding < factor
    ]
    assert all(conv_transpose_size(7, k, s, p, op) == 7 * factor for k, s, p, op in settings)
    return settings


def tent(kernel: int) -> np.ndarray:
    """One axis of the bilinear filter of this size."""
    return np.sqrt(np.diag(np.asarray(bilinear_kernel(kernel), np.float64)))


def respond(setting: Setting, cells: np.ndarray, taps: np.ndarray | None = None) -> np.ndarray:
    """The transposed convolution of one axis, by its definition: every cell lays down a copy of the filter."""
    kernel, stride, padding, output_padding = setting
    taps = tent(kernel) if taps is None else taps
    full = np.zeros((len(cells) - 1) * stride + kernel + output_padding)
    for index, value in enumerate(cells):
        full[index * stride : index * stride + kernel] += value * taps
    return full[padding : len(full) - padding]


class Response(NamedTuple):
    """What a bilinear start makes of a constant 1, and where it puts things.

    Attributes:
        shift: pixels that an image moves right and down where cell i covers the pixels s i ... s i + s - 1 (VGG).
        shift_on_pixels: the same where cell i lies on pixel s i (ResNet).
        gain: mean response to 1, on both axes together; 1 keeps scores as large as they are.
        ripple: standard deviation of that response between the s x s places of a cell, over its mean: a checkerboard.
        border: pixels along an edge (both ends of an axis together) that get less than those inside.
        corner: the least share of the response inside that a corner pixel gets, on both axes together.
    """

    shift: float
    shift_on_pixels: float
    gain: float
    ripple: float
    border: int
    corner: float


def response(setting: Setting) -> Response:
    """Measures a setting on a constant of nine cells."""
    kernel, stride, padding, _ = setting
    line = respond(setting, np.ones(9))
    inside = line[4 * stride : 5 * stride]
    share = np.divide(line, np.tile(inside, 9), out=np.ones_like(line), where=np.tile(inside, 9) > 0)
    both_axes = np.outer(inside, inside)
    centre = (kernel - 1) / 2 - padding  # output coordinate of cell 0
    return Response(
        shift=centre - (stride - 1) / 2,
        shift_on_pixels=centre,
        gain=both_axes.mean(),
        ripple=both_axes.std() / both_axes.mean(),
        border=int((share < 1 - 1e-12).sum()),
        corner=share.min() ** 2,
    )
