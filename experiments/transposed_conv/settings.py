"""Transposed convolutions that upsample exactly by a whole factor, and their responses to a constant.

Everything here concerns one axis, in float64 and from definitions. The two axes of a bilinear transposed convolution
are alike.
"""

from typing import NamedTuple

import numpy as np

from fcn_jax.layers import bilinear_kernel, conv_transpose_size


class Setting(NamedTuple):
    """Numbers of a transposed convolution, as PyTorch and the article name them."""

    kernel: int
    stride: int
    padding: int
    output_padding: int = 0

    def __str__(self) -> str:
        extra = f" op{self.output_padding}" if self.output_padding else ""
        return f"k{self.kernel} s{self.stride} p{self.padding}{extra}"


def choose_even(factor: int) -> Setting:
    """Choose kernel 2s: the article's (a), k4 s2 p1 and k16 s8 p4. The paper has it for VGG."""
    return Setting(2 * factor, factor, factor // 2)


def choose_tiled(factor: int) -> Setting:
    """Choose kernel = stride: the article's (b), k2 s2 p0 and k8 s8 p0. No output sees two inputs."""
    return Setting(factor, factor, 0)


def choose_odd(factor: int) -> Setting:
    """Choose kernel 2s - 1: k3 s2 p1 op1. It is aligned for ResNets, whose cells lie on pixels."""
    return Setting(2 * factor - 1, factor, factor - 1, factor - 1)


def list_exact_settings(factor: int) -> list[Setting]:
    """List the settings that turn n cells into exactly factor * n, with kernels from 1 to 2 * factor.

    As in PyTorch, padding is at most kernel - 1 and output padding at most stride - 1.
    """
    settings = [
        Setting(kernel, factor, padding, factor - kernel + 2 * padding)
        for kernel in range(1, 2 * factor + 1)
        for padding in range(kernel)
        if 0 <= factor - kernel + 2 * padding < factor
    ]
    assert all(conv_transpose_size(7, k, s, p, op) == 7 * factor for k, s, p, op in settings)
    return settings


def compute_taps(kernel: int) -> np.ndarray:
    """Compute one axis of the bilinear filter of this size: float64[kernel]."""
    return np.sqrt(np.diag(np.asarray(bilinear_kernel(kernel), np.float64)))


def upsample_line(setting: Setting, cells: np.ndarray, taps: np.ndarray | None = None) -> np.ndarray:
    """Apply the transposed convolution to one axis, by its definition: every cell adds a copy of the filter.

    Args:
        setting: its numbers.
        cells: float64[n], the input.
        taps: float64[kernel], the filter; None: bilinear.
    """
    kernel, stride, padding, output_padding = setting
    taps = compute_taps(kernel) if taps is None else taps
    full = np.zeros((len(cells) - 1) * stride + kernel + output_padding)
    for index, value in enumerate(cells):
        full[index * stride : index * stride + kernel] += value * taps
    return full[padding : len(full) - padding]


class Response(NamedTuple):
    """Response of a setting with a bilinear kernel to a constant 1, and the position of its cells.

    Attributes:
        shift: pixels by which the result lies right and down of its place, if cell i covers the pixels
            s i ... s i + s - 1 (VGG).
        shift_on_pixels: the same if cell i lies on pixel s i (ResNet).
        gain: mean response to 1, over both axes; 1 keeps the size of scores.
        ripple: standard deviation of that response over the s x s places in a cell, divided by its mean.
        border: pixels along an axis, both ends together, that get less than those inside.
        corner: smallest share of the inner response that a corner pixel gets, over both axes.
    """

    shift: float
    shift_on_pixels: float
    gain: float
    ripple: float
    border: int
    corner: float


def measure_response(setting: Setting) -> Response:
    """Measure a setting on a constant of nine cells."""
    kernel, stride, padding, _ = setting
    line = upsample_line(setting, np.ones(9))
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
