"""Images and masks of random numbers, folders of them, and PNG, TIFF and BMP files that Pillow does not write."""

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


def tiff_bytes(
    rows, size, bits, photometric, samples=1, extra=None, planar=1, fill_order=1, sample_format=1, kinds=(0,)
):
    """Assemble a TIFF as its specification says, from rows of packed samples, with a page for each subfile type.

    Photometric 0 is grey from white, 1 grey from black, 2 RGB, 3 palette; extra is the meaning of a further band.
    """
    data = b"".join(rows)
    file, previous = bytearray(struct.pack("<2sHI", b"II", 42, 0) + data), 4
    for kind in kinds:
        tags = {
            254: ("I", [kind]),
            256: ("H", [size[1]]),
            257: ("H", [size[0]]),
            258: ("H", [bits] * samples),
            259: ("H", [1]),
            262: ("H", [photometric]),
            266: ("H", [fill_order]),
            273: ("I", [8]),
            277: ("H", [samples]),
            278: ("H", [size[0]]),
            279: ("I", [len(data)]),
            284: ("H", [planar]),
            320: ("H", [0] * (3 << bits) if photometric == 3 else []),
            338: ("H", [] if extra is None else [extra]),
            339: ("H", [sample_format] * samples),
        }
        entries = b""
        for tag, (kind_of_number, values) in sorted(tags.items()):
            packed = struct.pack(f"<{len(values)}{kind_of_number}", *values)
            if len(packed) > 4:
                file += bytes(len(file) % 2)
                place, packed = len(file), packed
                file += packed
                packed = struct.pack("<I", place)
            if values:
                entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind_of_number], len(values)) + packed.ljust(
                    4, b"\0"
                )
        file += bytes(len(file) % 2)
        file[previous : previous + 4] = struct.pack("<I", len(file))
        file += struct.pack("<H", len(entries) // 12) + entries + bytes(4)
        previous = len(file) - 4
    return bytes(file)


def bmp_bytes(bits, colours, rows, width):
    """Assemble a BMP as its specification says, from a palette and rows of packed indices."""
    stride = (width * bits + 31) // 32 * 4
    pixels = b"".join(row.ljust(stride, b"\0") for row in reversed(rows))
    table = b"".join(bytes((blue, green, red, 0)) for red, green, blue in colours)
    start = 54 + len(table)
    header = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    sizes = struct.pack("<IiiHHIIiiII", 40, width, len(rows), 1, bits, 0, len(pixels), 0, 0, len(colours), 0)
    return header + sizes + table + pixels
