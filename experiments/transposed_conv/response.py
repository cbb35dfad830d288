"""Part 1, without training: responses of all exact settings to a constant, a single cell, a step and a photograph."""

import csv
import functools
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.cbook
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from settings import (
    Setting,
    choose_even,
    choose_odd,
    choose_tiled,
    list_exact_settings,
    measure_response,
    upsample_line,
)
from tqdm import tqdm

from fcn_jax.layers import conv_transpose, shift_and_stitch
from fcn_jax.runtime.files import write_atomically

FACTORS = (2, 4, 8, 16, 32)
CLASSES = 21
SIDE = 512  # pixels of the output whose computation is timed
COLUMNS = (
    "factor", "kernel", "stride", "padding", "output_padding", "shift", "shift_on_pixels", "gain", "ripple", "border",
    "corner", "gflop", "forward_ms", "gradient_ms",
)  # fmt: skip


def write_responses(out: Path, smoke: bool) -> None:
    """Write settings.csv, its tables and the pictures; `smoke` leaves out large factors and the tables."""
    factors = FACTORS[:2] if smoke else FACTORS
    settings = [setting for factor in factors for setting in list_exact_settings(factor)]
    time_once = functools.cache(functools.partial(time_layer, repeats=1 if smoke else 7))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for setting in tqdm(settings, "settings", disable=None):
        kernel, stride, *_ = setting
        cells = SIDE // stride
        gflop = 2 * kernel**2 * CLASSES**2 * cells**2 / 1e9
        # Padding and output padding only crop, so each kernel and stride is timed once.
        times = [f"{value:.2f}" for value in time_once(kernel, stride)]
        numbers = [f"{value:.4g}" for value in measure_response(setting)]
        table.writerow([stride, *setting, *numbers, f"{gflop:.3g}", *times])
    write_atomically(out / "settings.csv", text.getvalue())
    for factor in (2, 8):
        draw_responses(out, factor)
    if not smoke:
        write_atomically(out / "named.md", format_named_settings(out / "settings.csv"))
        write_atomically(out / "costs.md", format_costs())


def time_layer(kernel: int, stride: int, repeats: int) -> tuple[float, float]:
    """Time a transposed convolution to 512 x 512 pixels and 21 classes: forward, and with both gradients.

    Returns:
        Medians in milliseconds.
    """
    cells = SIDE // stride
    x = jax.random.normal(jax.random.key(0), (1, cells, cells, CLASSES))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, CLASSES, CLASSES))

    def apply(x: jax.Array, weights: jax.Array) -> jax.Array:
        # Crops to `stride` times the input where the kernel is larger than the stride, and extends it where it is not.
        front = max(kernel - stride, 0) // 2
        padding = (front, max(kernel - stride, 0) - front)
        extra = max(stride - kernel, 0)
        return conv_transpose(x, weights, stride, (padding, padding), output_padding=extra)

    forward = jax.jit(apply)

    @jax.jit
    def differentiate(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        y, back = jax.vjp(apply, x, weights)
        return y, back(jnp.ones_like(y))

    return _time_median(forward, (x, weights), repeats), _time_median(differentiate, (x, weights), repeats)


def _time_median(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def draw_responses(out: Path, factor: int) -> None:
    """Draw a single cell, a step and a photograph, each averaged to cells and upsampled again in six ways."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"(a) {choose_even(factor)}": functools.partial(upsample_averages, choose_even(factor)),
        f"(b) {choose_tiled(factor)}": functools.partial(upsample_averages, choose_tiled(factor)),
        f"{choose_odd(factor)}": functools.partial(upsample_averages, choose_odd(factor)),
        "resize (bilinear)": lambda image: _resize(average_cells(image, factor), factor, "bilinear"),
        "nearest": lambda image: _resize(average_cells(image, factor), factor, "nearest"),
        "shift-and-stitch": functools.partial(average_everywhere, factor=factor),
    }
    side = 4 * factor  # four cells a side
    impulse, step = np.zeros((3 * factor, 3 * factor)), np.zeros((side, side))
    impulse[factor : 2 * factor, factor : 2 * factor] = 1
    step[:, side // 2 :] = 1
    rows = {"one cell": impulse, "step": step, "photograph": load_photograph()}
    figure, axes = plt.subplots(3, 7, figsize=(15, 6.6), layout="constrained")
    for (row, image), line in zip(rows.items(), axes, strict=True):
        for (name, way), ax in zip({"input": lambda image: image, **ways}.items(), line, strict=True):
            picture = way(image)
            level = f"\nmean {picture.mean() / image.mean():.2f}" if row == "photograph" and name != "input" else ""
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set_title((name if row == "one cell" else "") + level, fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(row)
    figure.suptitle(f"averaged over {factor} x {factor} pixels, then upsampled x {factor}", fontsize=11)
    save_figure(figure, out / f"responses_x{factor}")


def upsample_averages(setting: Setting, image: np.ndarray) -> np.ndarray:
    """Average the image to cells and upsample them by a bilinear transposed convolution, one axis after the other."""
    rows = np.stack([upsample_line(setting, line) for line in average_cells(image, setting.stride).T], axis=1)
    return np.stack([upsample_line(setting, line) for line in rows])


def average_cells(image: np.ndarray, factor: int) -> np.ndarray:
    """Average each factor x factor pixels. This stands for a network of that stride."""
    height, width = image.shape
    return image.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def average_everywhere(image: np.ndarray, factor: int) -> np.ndarray:
    """Average factor x factor pixels around every pixel: the network of `average_cells`, by shift-and-stitch."""

    def net(x: jax.Array) -> jax.Array:
        height, width = (n // factor for n in x.shape[:2])
        x = x[: height * factor, : width * factor]
        return x.reshape(height, factor, width, factor, 1).mean(axis=(1, 3))

    # Half a window of zeros in front centres the first window on pixel 0, up to half a pixel: its side is even.
    padded = np.pad(image, ((factor // 2, factor - factor // 2),) * 2)[..., None].astype(np.float32)
    height, width = image.shape
    return np.asarray(shift_and_stitch(net, padded, factor))[:height, :width, 0]


def _resize(cells: np.ndarray, factor: int, method: str) -> np.ndarray:
    height, width = cells.shape
    return np.asarray(jax.image.resize(cells.astype(np.float32), (height * factor, width * factor), method))


def load_photograph() -> np.ndarray:
    """Load a public-domain photograph that comes with matplotlib: float64[256, 256], grey, 0 to 1."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = np.asarray(Image.open(file).convert("L"), np.float64) / 255
    return image[40:296, 128:384]


def save_figure(figure: Any, stem: Path) -> None:
    """Save a figure as PNG and SVG, with the same bytes every time."""
    figure.savefig(stem.with_suffix(".png"), dpi=110, metadata={"Software": None})
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def format_named_settings(file: Path) -> str:
    """Format the settings (a), (b) and the odd one of each factor in settings.csv as a Markdown table."""
    with file.open() as lines:
        rows = {tuple(int(row[name]) for name in COLUMNS[1:5]): row for row in csv.DictReader(lines)}
    text = [
        "| factor | setting | shift, VGG | shift, ResNet | gain | ripple | border | corner | GFLOP | ms "
        "| ms with gradients |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = ("shift", "shift_on_pixels", "gain", "ripple", "border", "corner", "gflop", "forward_ms", "gradient_ms")
    for factor in FACTORS:
        for label, setting in (("(a) ", choose_even(factor)), ("(b) ", choose_tiled(factor)), ("", choose_odd(factor))):
            values = " | ".join(rows[tuple(setting)][name] for name in names)
            text.append(f"| {factor} | {label}{setting} | {values} |")
    return "\n".join(text) + "\n"


def format_costs() -> str:
    """Format what dense scores of FCN-VGG16 cost at 512 x 512 in each of the paper's ways, as a Markdown table.

    A multiplication and its addition count as two operations.
    """
    stages = [(3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)]

    def count_trunk(finest: int) -> float:
        """Count GFLOP of the network whose pooling stops at stride `finest`; later filters are dilated (à trous)."""
        total = 0.0
        for stage, (ins, outs, depth) in enumerate(stages):
            pixels = (SIDE // min(2**stage, finest)) ** 2
            total += pixels * 9 * (ins * outs + (depth - 1) * outs**2)
        pixels = (SIDE // min(32, finest)) ** 2
        total += pixels * (49 * 512 * 4096 + 4096**2 + 4096 * CLASSES)
        return 2 * total / 1e9

    def count_upsampling(factor: int) -> float:
        return 2 * (2 * factor) ** 2 * CLASSES**2 * (SIDE // factor) ** 2 / 1e9

    plain = count_trunk(32)
    rows = [
        ("no upsampling: scores at stride 32", plain),
        ("transposed convolution x32 (FCN-32s)", plain + count_upsampling(32)),
        # The scores of pool4 and pool3 and the two x2 steps are small; they are counted too.
        ("two skips and x2, x2, x8 (FCN-8s)", plain + sum(
            2 * CLASSES * channels * (SIDE // stride) ** 2 / 1e9 for channels, stride in ((512, 16), (256, 8))
        ) + 2 * 16 * CLASSES**2 * ((SIDE // 32) ** 2 + (SIDE // 16) ** 2) / 1e9 + count_upsampling(8)),
        ("à trous from stride 8 on", count_trunk(8)),
        ("à trous at every pixel", count_trunk(1)),
        ("shift-and-stitch at every pixel: 32 x 32 passes", plain * 32**2),
    ]  # fmt: skip
    text = ["| dense scores of FCN-VGG16 at 512 x 512 | GFLOP | times |", "| --- | --- | --- |"]
    text += [f"| {name} | {value:,.0f} | {value / plain:,.3f} |" for name, value in rows]
    return "\n".join(text) + "\n"
