"""Part 1, without training: what every exact setting does to a constant, an impulse, a step and a photograph."""

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
from settings import Setting, even, exact_settings, odd, respond, response, tiled
from tqdm import tqdm

from fcn_jax.layers import conv_transpose, shift_and_stitch
from fcn_jax.runs.run_dir import write_whole

FACTORS = (2, 4, 8, 16, 32)
CLASSES = 21
SIDE = 512  # of the output that is timed
COLUMNS = (
    "factor", "kernel", "stride", "padding", "output_padding", "shift", "shift_on_pixels", "gain", "ripple", "border",
    "corner", "gflop", "forward_ms", "gradient_ms",
)  # fmt: skip


def measure(out: Path, smoke: bool) -> None:
    """Writes settings.csv, costs.md and the pictures."""
    factors = FACTORS[:2] if smoke else FACTORS
    settings = [setting for factor in factors for setting in exact_settings(factor)]
    timed = functools.cache(functools.partial(milliseconds, repeats=1 if smoke else 7))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for setting in tqdm(settings, "settings", disable=None):
        kernel, stride, *_ = setting
        cells = SIDE // stride
        gflop = 2 * kernel**2 * CLASSES**2 * cells**2 / 1e9
        # Padding and output padding only cut: a kernel and a stride are timed once.
        times = [f"{value:.2f}" for value in timed(kernel, stride)]
        numbers = [f"{value:.4g}" for value in response(setting)]
        table.writerow([stride, *setting, *numbers, f"{gflop:.3g}", *times])
    write_whole(out / "settings.csv", text.getvalue())
    for factor in (2, 8):
        draw(out, factor)
    if not smoke:
        write_whole(out / "named.md", named_table(out / "settings.csv"))
        write_whole(out / "costs.md", cost_table())


def milliseconds(kernel: int, stride: int, repeats: int) -> tuple[float, float]:
    """Median time of a transposed convolution to 512 x 512 pixels and 21 classes: forward, and with both gradients."""
    cells = SIDE // stride
    x = jax.random.normal(jax.random.key(0), (1, cells, cells, CLASSES))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, CLASSES, CLASSES))

    def apply(x: jax.Array, weights: jax.Array) -> jax.Array:
        # The crop that gives exactly x stride, as far as there is something to cut.
        front = max(kernel - stride, 0) // 2
        padding = (front, max(kernel - stride, 0) - front)
        extra = max(stride - kernel, 0)
        return conv_transpose(x, weights, stride, (padding, padding), output_padding=extra)

    forward = jax.jit(apply)

    @jax.jit
    def both(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        y, back = jax.vjp(apply, x, weights)
        return y, back(jnp.ones_like(y))

    return _median(forward, (x, weights), repeats), _median(both, (x, weights), repeats)


def _median(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


# ------------------------------------------------------------------------------------------------- pictures


def draw(out: Path, factor: int) -> None:
    """Impulse, step and photograph, each averaged to cells and brought back in six ways."""
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"(a) {even(factor)}": functools.partial(transposed, even(factor)),
        f"(b) {tiled(factor)}": functools.partial(transposed, tiled(factor)),
        f"{odd(factor)}": functools.partial(transposed, odd(factor)),
        "resize (bilinear)": lambda image: _resize(cells_of(image, factor), factor, "bilinear"),
        "nearest": lambda image: _resize(cells_of(image, factor), factor, "nearest"),
        "shift-and-stitch": functools.partial(stitched, factor=factor),
    }
    side = 4 * factor  # four cells a side
    impulse, step = np.zeros((3 * factor, 3 * factor)), np.zeros((side, side))
    impulse[factor : 2 * factor, factor : 2 * factor] = 1
    step[:, side // 2 :] = 1
    rows = {"one cell": impulse, "step": step, "photograph": photograph()}
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
    figure.suptitle(f"averaged over {factor} x {factor} pixels, then brought back (x {factor})", fontsize=11)
    save(figure, out / f"responses_x{factor}")


def transposed(setting: Setting, image: np.ndarray) -> np.ndarray:
    """Cells of the image through a bilinear transposed convolution, one axis after the other."""
    rows = np.stack([respond(setting, line) for line in cells_of(image, setting.stride).T], axis=1)
    return np.stack([respond(setting, line) for line in rows])


def cells_of(image: np.ndarray, factor: int) -> np.ndarray:
    """The mean of each factor x factor pixels: a stand-in for a network of that stride."""
    height, width = image.shape
    return image.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def stitched(image: np.ndarray, factor: int) -> np.ndarray:
    """The same network at every pixel: the mean of factor x factor pixels around each, by shift and stitch."""

    def net(x: jax.Array) -> jax.Array:
        height, width = (n // factor for n in x.shape[:2])
        x = x[: height * factor, : width * factor]
        return x.reshape(height, factor, width, factor, 1).mean(axis=(1, 3))

    # Half a window of zeros in front centres the first window on pixel 0 (half a pixel off: the window is even).
    padded = np.pad(image, ((factor // 2, factor - factor // 2),) * 2)[..., None].astype(np.float32)
    height, width = image.shape
    return np.asarray(shift_and_stitch(net, padded, factor))[:height, :width, 0]


def _resize(cells: np.ndarray, factor: int, method: str) -> np.ndarray:
    height, width = cells.shape
    return np.asarray(jax.image.resize(cells.astype(np.float32), (height * factor, width * factor), method))


def photograph() -> np.ndarray:
    """A public-domain photograph that matplotlib brings along: grey, 0 to 1, 256 x 256."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = np.asarray(Image.open(file).convert("L"), np.float64) / 255
    return image[40:296, 128:384]


def save(figure: Any, stem: Path) -> None:
    """As PNG and SVG, the same bytes every time."""
    figure.savefig(stem.with_suffix(".png"), dpi=110, metadata={"Software": None})
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


# --------------------------------------------------------------------------------------------------- tables


def named_table(file: Path) -> str:
    """The settings that have a name, of each factor, as Markdown."""
    with file.open() as lines:
        rows = {tuple(int(row[name]) for name in COLUMNS[1:5]): row for row in csv.DictReader(lines)}
    text = [
        "| factor | setting | shift, VGG | shift, ResNet | gain | ripple | border | corner | GFLOP | ms "
        "| ms with gradients |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = ("shift", "shift_on_pixels", "gain", "ripple", "border", "corner", "gflop", "forward_ms", "gradient_ms")
    for factor in FACTORS:
        for label, setting in (("(a) ", even(factor)), ("(b) ", tiled(factor)), ("", odd(factor))):
            values = " | ".join(rows[tuple(setting)][name] for name in names)
            text.append(f"| {factor} | {label}{setting} | {values} |")
    return "\n".join(text) + "\n"


def cost_table() -> str:
    """What dense scores of FCN-VGG16 cost at 512 x 512 by each of the paper's ways, multiplications counted twice."""
    stages = [(3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)]

    def trunk(finest: int) -> float:
        """GFLOP with pooling that stops at stride `finest`; filters behind it dilated (à trous) and not smaller."""
        total = 0.0
        for stage, (ins, outs, depth) in enumerate(stages):
            pixels = (SIDE // min(2**stage, finest)) ** 2
            total += pixels * 9 * (ins * outs + (depth - 1) * outs**2)
        pixels = (SIDE // min(32, finest)) ** 2
        total += pixels * (49 * 512 * 4096 + 4096**2 + 4096 * CLASSES)
        return 2 * total / 1e9

    def upsampling(factor: int) -> float:
        return 2 * (2 * factor) ** 2 * CLASSES**2 * (SIDE // factor) ** 2 / 1e9

    plain = trunk(32)
    rows = [
        ("no upsampling: scores at stride 32", plain),
        ("transposed convolution x32 (FCN-32s)", plain + upsampling(32)),
        # Scores of pool4 and pool3 and the two x2 steps are counted; they are small.
        ("two skips and x2, x2, x8 (FCN-8s)", plain + sum(
            2 * CLASSES * channels * (SIDE // stride) ** 2 / 1e9 for channels, stride in ((512, 16), (256, 8))
        ) + 2 * 16 * CLASSES**2 * ((SIDE // 32) ** 2 + (SIDE // 16) ** 2) / 1e9 + upsampling(8)),
        ("à trous from stride 8 on", trunk(8)),
        ("à trous at every pixel", trunk(1)),
        ("shift-and-stitch at every pixel: 32 x 32 passes", plain * 32**2),
    ]  # fmt: skip
    text = ["| dense scores of FCN-VGG16 at 512 x 512 | GFLOP | times |", "| --- | --- | --- |"]
    text += [f"| {name} | {value:,.0f} | {value / plain:,.3f} |" for name, value in rows]
    return "\n".join(text) + "\n"
