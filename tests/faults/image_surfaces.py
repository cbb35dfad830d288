"""Images to predict, pairs of images and masks to prepare, and files of classes and lists."""

import io
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from drawn import mask, picture, png_chunk, tiff_bytes
from faults.harness import Surface
from faults.mutations import damage
from one_task import read_pair
from PIL import Image

from fcn_jax.data.bands import read_bands
from fcn_jax.data.label_map import LabelMap, parse_label_map
from fcn_jax.data.large_images import make_room
from fcn_jax.data.sources.class_file import read_classes
from fcn_jax.data.sources.folder import BANDS
from fcn_jax.data.sources.listing import read_list
from fcn_jax.inference.read_image import read_image

RGB, MASK = Image.fromarray(picture(20, 30)), Image.fromarray(mask(20, 30))
INDEXED = RGB.quantize(256)
MAP = LabelMap()
COLOURS = parse_label_map((), (), ("a", "b"), ((0, 0, 0), (128, 0, 0)))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def to_tiff(array: np.ndarray, **layout: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **layout)
    return file.getvalue()


def to_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, kind, exif=exif)


def wide(width: int, height: int) -> bytes:
    return encode(Image.new("L", (width, height)), "PNG")


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side * side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


PNGS = [
    encode(RGB, "PNG"), encode(RGB.convert("RGBA"), "PNG"), encode(RGB.convert("LA"), "PNG"), encode(INDEXED, "PNG"),
    encode(INDEXED, "PNG", transparency=3), encode(RGB.convert("1"), "PNG"), turned("PNG", 3), wide(1, 1),
    wide(30_000, 1), wide(1, 30_000), encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]),
]  # fmt: skip
TIFFS = [
    encode(RGB, "TIFF"), encode(RGB, "TIFF", compression="tiff_lzw"), encode(RGB, "TIFF", compression="jpeg"),
    encode(RGB, "TIFF", compression="tiff_adobe_deflate"), encode(RGB.convert("CMYK"), "TIFF"),
    encode(INDEXED, "TIFF"), turned("TIFF", 6), encode(RGB, "TIFF", save_all=True, append_images=[RGB, RGB]),
    encode(RGB, "TIFF", big_tiff=True), tiff_bytes([bytes(3)] * 4, (4, 3), 8, 1),
]  # fmt: skip
OTHERS = [
    encode(RGB, "JPEG"), encode(RGB.convert("CMYK"), "JPEG"), encode(RGB.convert("L"), "JPEG"), turned("JPEG", 6),
    encode(RGB, "JPEG", progressive=True), encode(RGB, "WEBP"), encode(RGB, "WEBP", lossless=True),
    encode(RGB, "WEBP", save_all=True, append_images=[RGB]), encode(RGB, "BMP"), encode(INDEXED, "BMP"),
    encode(INDEXED, "GIF"), encode(INDEXED, "GIF", save_all=True, append_images=[INDEXED.rotate(90)]),
    encode(RGB, "PPM"), encode(RGB, "TGA"), encode(INDEXED, "PCX"), encode(RGB, "SGI"), encode(RGB, "JPEG2000"),
    encode(RGB, "DDS"), encode(RGB, "MPO", save_all=True, append_images=[RGB]),
]  # fmt: skip
IMAGES = [*PNGS, *TIFFS, *OTHERS]

MASKS = [
    encode(MASK, "PNG"), encode(MASK, "TIFF"), encode(MASK, "BMP"), encode(MASK, "PPM"), encode(MASK, "TGA"),
    encode(Image.fromarray(mask(20, 30).astype(np.uint16)), "PNG"), encode(MASK.convert("P"), "PNG"),
    encode(Image.fromarray(mask(20, 30, 1) // 255), "PNG", bits=1), encode(MASK, "TIFF", compression="tiff_lzw"),
    encode(Image.new("1", (30, 20)), "GIF"), encode(Image.new("1", (30, 20)), "TIFF", compression="group4"),
]  # fmt: skip
COLOURED = [encode(Image.fromarray(np.zeros((20, 30, 3), np.uint8)), kind) for kind in ("PNG", "BMP", "TIFF", "PCX")]

CLASSES = [
    b"sky\nsea\nsand\n",
    "\ufeffHimmel\r\nMeer\r\n".encode(),
    b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::a,b\n",
    b"name,r,g,b\nsky,1,2,3\nsea, 4, 5, 6\n",
    b"__ignore__\n_background_\ncat\n",
    b"".join(b"class %d,%d,0,0\n" % (i, i) for i in range(255)),
]
LISTS = [b"a\nb\nc\n", b"/JPEGImages/a.jpg /SegmentationClass/a.png\n", b"a  1\nb -1\n"]


def read_with_mask(file: Path) -> None:
    """Read a hostile image beside a sound mask."""
    _read_pair(file, _beside(file, MASKS[0]), MAP)


def read_with_image(file: Path) -> None:
    """Read a hostile mask beside a sound image."""
    _read_pair(_beside(file, PNGS[0]), file, MAP)


def read_in_colour(file: Path) -> None:
    _read_pair(_beside(file, PNGS[0]), file, COLOURS)


def _read_pair(image: Path, mask: Path, label_map: LabelMap) -> None:
    with make_room(image, mask):
        read_pair([image], mask, 3, label_map)


def _beside(file: Path, data: bytes) -> Path:
    other = file.with_name("other")
    other.write_bytes(data)
    return other


def promise(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage a file, or make a PNG of any size in its header."""
    return bomb(2 ** rng.randrange(8, 31)) if rng.random() < 0.02 else damage(data, rng, others)


STILL = [PNGS[0], OTHERS[0], *TIFFS[:2]]
BAND_TIFFS = [
    to_tiff(np.arange(120, dtype=np.uint16).reshape(4, 6, 5), planarconfig="contig"),
    to_tiff(np.arange(120, dtype=np.uint8).reshape(5, 4, 6), planarconfig="separate"),
    to_tiff(np.arange(2048, dtype=np.uint16).reshape(16, 16, 8), planarconfig="contig", tile=(16, 16)),
]
ARRAYS = [to_npy(np.zeros((4, 5, 6), np.uint16)), to_npy(np.ones((4, 5), np.uint8))]

SURFACES = [
    Surface("bands: NumPy array", ARRAYS, lambda file: read_bands(file, BANDS), file="a.npy"),
    Surface("bands: TIFF", BAND_TIFFS, lambda file: read_bands(file, BANDS), file="a.tif"),
    Surface("image to predict: PNG", PNGS, read_image, promise),
    Surface("image to predict: TIFF", TIFFS, read_image),
    Surface("image to predict: other formats", OTHERS, read_image, share=1.5),
    Surface("image of an example", STILL, read_with_mask),
    Surface("mask of an example", MASKS, read_with_image),
    Surface("mask in colour", COLOURED, read_in_colour),
    Surface("file of classes", CLASSES, read_classes, share=2),
    Surface("list of examples", LISTS, read_list, share=0.5),
]
