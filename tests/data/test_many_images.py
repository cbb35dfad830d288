"""Preparing many images takes the memory of a shard and of the list of examples."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from measured import run_measured
from PIL import Image

from fcn_jax.data.builder import SHARD
from fcn_jax.data.labels import IGNORE, palette

FILES = 8  # different images and masks; all others are links to them
LISTING = 5_000  # bytes of memory for an example in the list of all: its name, two paths, and their sizes and times


def write_voc(folder: Path, count: int) -> int:
    """Write VOC's official layout, four fifths of it train, and return the bytes of an image and its mask."""
    base = folder / "VOCdevkit" / "VOC2012"
    lists, images, masks, few = (
        base / name for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass", "few")
    )
    for part in (lists, images, masks, few):
        part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(FILES):
        shape = (250, 333) if number % 2 else (333, 250)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(few / f"{number}.jpg", quality=93)
        label = np.zeros(shape, np.uint8)
        label[20:120, 30:200], label[120:123] = number + 1, IGNORE
        mask = Image.fromarray(label)
        mask.putpalette(palette(256).tobytes())
        mask.save(few / f"{number}.png")
    names = [f"2012_{number:06}" for number in range(count)]
    for number, name in enumerate(names):
        os.link(few / f"{number % FILES}.jpg", images / f"{name}.jpg")
        os.link(few / f"{number % FILES}.png", masks / f"{name}.png")
    for split, part in (("train", names[: count * 4 // 5]), ("val", names[count * 4 // 5 :])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    return sum(file.stat().st_size for file in few.iterdir()) // FILES


def prepare(folder: Path, count: int) -> int:
    """Prepare it in a process, and return the peak of its memory in bytes."""
    words = ("data", "prepare", "voc2012", "--dir", folder, "--cache", folder / "cache")
    start = time.monotonic()
    output, peak, cpu = run_measured((sys.executable, "-m", "fcn_jax", *words))
    seconds = time.monotonic() - start
    assert f"voc2012 train: {count * 4 // 5} images\n" in output
    assert f"voc2012 val: {count - count * 4 // 5} images\n" in output
    print(f"{count:,} images: {peak / 1e6:.0f} MB, {count / seconds:.0f} images/s, {count / cpu:.0f} per CPU second")
    return peak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_ten_times_as_many_images_take_only_a_longer_list(tmp_path):
    """Both have more than a shard of images, which is what is in memory at a time."""
    peaks = {}
    for count in (2_000, 20_000):
        folder = tmp_path / str(count)
        size = write_voc(folder, count)
        assert size * count * 4 // 5 > SHARD
        peaks[count] = prepare(folder, count)
        shutil.rmtree(folder)
    assert size > 10 * LISTING
    assert peaks[20_000] - peaks[2_000] < 18_000 * LISTING
