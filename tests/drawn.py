"""Images and masks of random numbers, folders of them, and PNG files that Pillow does not write."""

import struct
import zlib

import numpy as np
from PIL import Image

from fcn_jax.data.labels import IGNORE

_RNG = np.random.default_rng(0)


def picture(height=6, width=9):
    return _RNG.integers(0, 256, (height, width, 3), np.uint8)


def mask(height=6, width=9, classes=3):
    return _RNG.choice(np.array([*range(classes), IGNORE], np.uint8), (height, width))


def save(array, file, mode=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, **options)
    return array


def make_folder(root):
    """Write data for `folder`: three images to train on and one to evaluate on, and three classes."""
    for split, stem in (("train", "a"), ("train", "b"), ("train", "c"), ("val", "d")):
        save(picture(), root / "images" / split / f"{stem}.png")
        save(mask(), root / "labels" / split / f"{stem}.png")
    (root / "classes.txt").write_text("ground\ntree\nwater\n")
    return root


def list_contents(dataset):
    """Name, image and label of every example, as lists that can be compared."""
    return {
        split: [(e.name, e.image.tolist(), e.label.tolist()) for e in dataset.source(split)] for split in dataset.splits
    }


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(depth, kind, rows, size):
    """Assemble a PNG as its specification says, from rows of packed samples; kind 0 is grey, 2 RGB, 3 palette."""
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, 0)
    colours = png_chunk(b"PLTE", bytes(3 << depth)) if kind == 3 else b""
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + colours + pixels + png_chunk(b"IEND", b"")
