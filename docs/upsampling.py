"""Draw the pictures of upsampling.md: `python docs/upsampling.py` writes docs/images/*.svg (needs matplotlib).

The curves are computed by `fcn_jax.layers`, so the pictures show what the code does.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt

from fcn_jax.layers import bilinear_kernel, conv_transpose, upsample_bilinear

IMAGES = Path(__file__).parent / "images"
BLUE, ORANGE, GREEN, GREY = "#3366aa", "#dd7722", "#338855", "#999999"


def compute_taps(size: int) -> np.ndarray:
    """Compute one axis of the bilinear filter: float64[size]."""
    return np.sqrt(np.diag(bilinear_kernel(size)))


def save_figure(figure, name: str) -> None:
    """Save a figure as SVG, with the same bytes every time."""
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def draw_sum(ax, values, size: int, stride: int) -> None:
    """Draw the kernel copies that the inputs place on the output, and their sum."""
    full = np.zeros((len(values) - 1) * stride + size)
    for i, value in enumerate(values):
        at = np.arange(size) + stride * i
        full[at] += value * compute_taps(size)
        ax.plot(at, value * compute_taps(size), "o-", color=BLUE, alpha=0.45, markersize=3, linewidth=1)
        ax.plot(stride * i + (size - 1) / 2, value, "v", color=ORANGE)
    ax.plot(np.arange(len(full)), full, "o-", color="black", markersize=4, linewidth=1.5)
    ax.set_xticks(np.arange(0, len(full), 2))
    ax.set_xlabel("position in the full output")
    ax.spines[["top", "right"]].set_visible(False)


def draw_copies() -> None:
    """Draw what a transposed convolution does."""
    figure, ax = plt.subplots(figsize=(8, 2.6))
    draw_sum(ax, [1.0, 3.0, 2.0, 2.5], 8, 4)
    ax.set_title("four inputs (orange), their kernel copies (blue), the output (black): kernel 8, stride 4", fontsize=9)
    save_figure(figure, "copies")


def draw_forms() -> None:
    """Draw the two ways to sample the bilinear filter."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
    fine = np.linspace(-4, 4, 401)
    for ax, size in zip(axes, (8, 7), strict=True):
        at = np.arange(size) - (size - 1) / 2
        ax.plot(fine, 1 - np.abs(fine) / 4, color=GREY, linewidth=1)
        ax.vlines(at, 0, compute_taps(size), color=BLUE)
        ax.plot(at, compute_taps(size), "o", color=BLUE)
        ax.plot(0, 1, "v", color=ORANGE)
        ax.set_xticks(at)
        ax.tick_params(labelsize=7)
        ax.set_xlabel("distance from the centre, in pixels")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_title("centre between two pixels: 2s = 8 taps", fontsize=9)
    axes[1].set_title("centre upon a pixel: 2s - 1 = 7 taps", fontsize=9)
    save_figure(figure, "forms")


def draw_unity() -> None:
    """Draw what four kernel sizes make of a constant."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.2), sharey=True)
    for ax, size in zip(axes, (8, 7, 4, 6), strict=True):
        draw_sum(ax, np.ones(5), size, 4)
        ax.set_title(f"stride 4, kernel {size}", fontsize=9)
        ax.set_xticks([])
        ax.set_ylim(0, 1.35)
    save_figure(figure, "unity")


def draw_alignment() -> None:
    """Draw where the cells of stride 4 lie on the image, for VGG and for ResNets."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 3.4), sharex=True)
    rows = (("even windows (VGG): offset (s - 1) / 2 = 1.5", 1.5), ("symmetric padding (ResNet): offset 0", 0.0))
    for ax, (title, offset) in zip(axes, rows, strict=True):
        ax.set_title(title, fontsize=9, loc="left")
        ax.hlines([0, 1], -0.5, 15.5, color=GREY, linewidth=0.7)
        ax.vlines(np.arange(17) - 0.5, 0, 1, color=GREY, linewidth=0.7)
        ax.plot(np.arange(16), np.full(16, 0.5), ".", color=GREY)
        for i in range(4):
            centre = offset + 4 * i
            size = 8 if offset else 7
            at = np.arange(size) - (size - 1) / 2 + centre
            seen = (at >= 0) & (at <= 15)
            ax.plot(centre, 1.15, "v", color=ORANGE)
            ax.plot(at[seen], 1.3 + compute_taps(size)[seen], "o-", color=BLUE, markersize=3, linewidth=1, alpha=0.6)
        ax.set_yticks([])
        ax.set_ylim(-0.1, 2.5)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[1].set_xticks(np.arange(16))
    axes[1].set_xlabel("pixel of the image")
    save_figure(figure, "alignment")


def draw_border() -> None:
    """Draw the same cells upsampled in three ways."""
    values = jnp.array([1.0, 3.0, 2.0, 2.5])
    x = values.reshape(1, 4, 1)
    figure, ax = plt.subplots(figsize=(9, 3))
    even = upsample_bilinear(x, (1, 4))[0, :, 0]
    resize = jax.image.resize(x[0], (16, 1), "bilinear")[:, 0]
    odd = upsample_bilinear(x, (1, 4), kernel_size=(1, 7), padding=(0, 3))[0, :, 0]
    ax.plot(np.arange(16), resize, "s-", color=GREEN, markersize=7, alpha=0.5, label="jax.image.resize")
    ax.plot(np.arange(16), even, "o-", color=BLUE, markersize=4, label="kernel 8, padding 2: offset 1.5")
    ax.plot(
        np.arange(13), odd, "o-", color=ORANGE, markersize=4, label="kernel 7, padding 3: offset 0, corners aligned"
    )
    ax.plot(1.5 + 4 * np.arange(4), values, "v", color=BLUE)
    ax.plot(4 * np.arange(4), values, "v", color=ORANGE)
    ax.set_xticks(np.arange(16))
    ax.set_xlabel("pixel of the image")
    ax.legend(fontsize=8, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, "border")


def draw_blocks() -> None:
    """Draw how outputs are computed with inserted zeros, and in blocks and phases."""
    figure, (zeros, blocks) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True)
    stride, size, n = 4, 8, 4
    full = (n - 1) * stride + size
    for ax in (zeros, blocks):
        ax.set_yticks([])
        ax.set_ylim(-0.2, 2.2)
        ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
    zeros.set_title(
        "with inserted zeros: each output meets 8 positions, 2 of which hold an input", fontsize=9, loc="left"
    )
    blocks.set_title(
        "in blocks: output 4q + r meets inputs q and q - 1 with the taps of phase r", fontsize=9, loc="left"
    )
    for position in range(-size + 1, full):
        filled = position % stride == 0 and 0 <= position < n * stride
        zeros.add_patch(plt.Rectangle((position - 0.4, 1.4), 0.8, 0.6, color=ORANGE if filled else "#eeeeee"))
    q, r = 2, 1
    out = stride * q + r
    for position in range(full):
        zeros.add_patch(plt.Rectangle((position - 0.4, 0), 0.8, 0.6, color=BLUE if position == out else "#ccd8ea"))
        same = position // stride == q
        blocks.add_patch(plt.Rectangle((position - 0.4, 0), 0.8, 0.6, color=BLUE if same else "#ccd8ea"))
        blocks.text(position, 0.3, str(position % stride), ha="center", va="center", fontsize=7)
    for position in range(out - size + 1, out + 1):
        zeros.plot([position, out], [1.4, 0.6], color=GREY, linewidth=0.7)
    for i in range(n):
        near = i in (q, q - 1)
        blocks.add_patch(plt.Rectangle((stride * i + 1.1, 1.4), 0.8, 0.6, color=ORANGE, alpha=1 if near else 0.35))
        if near:
            for position in range(stride * q, stride * (q + 1)):
                blocks.plot([stride * i + 1.5, position], [1.4, 0.6], color=GREY, linewidth=0.7)
    blocks.set_xlim(-size, full)
    blocks.set_xticks([])
    save_figure(figure, "blocks")


def check_sum() -> None:
    """Check that the sum of kernel copies in the pictures is the result of `conv_transpose`."""
    values = jnp.array([1.0, 3.0, 2.0, 2.5])
    got = conv_transpose(values[:, None], jnp.asarray(compute_taps(8), jnp.float32)[:, None, None], 4, 0)[:, 0]
    want = np.zeros(20)
    for i, value in enumerate(values):
        want[4 * i : 4 * i + 8] += float(value) * compute_taps(8)
    np.testing.assert_allclose(got, want, rtol=1e-6)


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "fcn_jax", "font.size": 8, "svg.fonttype": "path"})
    IMAGES.mkdir(exist_ok=True)
    check_sum()
    for draw in (draw_copies, draw_forms, draw_unity, draw_alignment, draw_border, draw_blocks):
        draw()
