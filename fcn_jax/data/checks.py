"""Read an image and its mask, and check both.

A mask holds class numbers, in mode P (its indices; the colours are ignored) or grey, with 8 bits or fewer. An 8-bit PNG
whose numbers are the labels is kept without its palette; other masks are stored as PNG.

A JPEG or PNG in RGB is kept byte for byte. Images that convert to RGB without loss (grey, palette, an alpha channel
without transparent pixels, other file types) are stored as PNG. Other images are refused.

EXIF orientation: the size of the mask shows whether it was drawn on the stored or on the turned image, and the image is
turned to fit. If both images have the same size, the image is refused.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageFile

from fcn_jax.data.exif import read_orientation, turn_upright, warn_of_damage
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.png import drop_damaged_chunks, strip_palette
from fcn_jax.errors import InputError

_JPEG = ("JPEG", "MPO")  # MPO, made by some phones: a JPEG followed by further images
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow scales the values of a grey file of 2 or 4 bits to 0..255


class _File(NamedTuple):
    data: bytes
    image: ImageFile.ImageFile
    rawmode: str  # layout of the samples in the file; lost on loading, which turns 16-bit colours into 8-bit ones


def encode_png(array: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """Encode an image or label as PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=3)  # half the time of the default 6
    return file.getvalue()


class Pair(NamedTuple):
    """An example as it is stored.

    Attributes:
        image: a JPEG or PNG in RGB.
        label: a PNG with the class of each pixel, and 255 for void.
        counts: number of pixels of each label, int64 [256].
        shape: height and width of both.
    """

    image: bytes
    label: bytes
    counts: Int64[np.ndarray, "256"]
    shape: tuple[int, int]


def read_pair(image: Path, mask: Path, num_classes: int, label_map: LabelMap) -> Pair:
    """Read and check the two files of an example.

    Args:
        image: the image file.
        mask: the mask file.
        num_classes: labels are 0..num_classes - 1.
        label_map: the labels of the samples of the mask.

    Raises:
        InputError: something is wrong; the message has one line for each problem.
    """
    problems = []
    try:
        found = _open_file(image, "image")
        _check_colours(found, image.name)
    except InputError as error:
        problems.append(str(error))
    try:
        drawn = _open_file(mask, "mask")
        indices = _read_indices(drawn, mask.name)
        label = label_map.look_up(indices, mask.name, num_classes)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    turned = _turn_like_mask(found.image, label.shape, image.name)
    if label.shape != (turned.height, turned.width):
        raise InputError(
            f"mask {mask.name} has {label.shape[1]}x{label.shape[0]} pixels, its image {image.name} "
            f"{turned.width}x{turned.height}: they must have the same size; make the mask from this image"
        )
    as_found = turned is found.image and turned.mode == "RGB" and found.image.format in (*_JPEG, "PNG")
    plain = label is indices and drawn.image.format == "PNG" and drawn.rawmode in ("L", "P")
    return Pair(
        found.data if as_found else encode_png(np.asarray(turned.convert("RGB"))),
        strip_palette(drawn.data) if plain else encode_png(label),
        count_pixels(label),
        label.shape,
    )


def count_pixels(label: UInt8[np.ndarray, "height width"]) -> Int64[np.ndarray, "256"]:
    """Count the pixels of each label."""
    return np.bincount(label.ravel(), minlength=256)


def _open_file(file: Path, what: str) -> _File:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{what} {file.name} cannot be read in {file.parent} ({error.strerror}): an example is an image and "
            "a mask, so add the file or remove its partner"
        ) from error
    try:
        data, damaged = drop_damaged_chunks(data)
        image = Image.open(io.BytesIO(data))
        rawmode = str(image.tile[0].args) if image.tile else image.mode
        with Image.open(io.BytesIO(data)) as other:
            if other.format == "PNG":
                other.verify()  # the file's checksums; decoding alone lets some damaged pixels pass
            # A JPEG that is kept byte for byte has to be read, but its pixels are not used: only an eighth of its rows
            # and columns is computed. libjpeg does not scale lossless files, which have the marker below.
            is_kept = other.format in _JPEG and other.mode == "RGB" and read_orientation(other, file.name) == 1
            if is_kept and b"\xff\xc3" not in data:
                other.draft(None, (1, 1))
                other.load()
            else:
                image.load()
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError(
            f"{what} {file.name} cannot be decoded ({error}): it is incomplete, damaged or not a picture; get it anew"
        ) from error
    if damaged:
        warn_of_damage(file.name, f"the part {', '.join(damaged)}")
    return _File(data, image, rawmode)


def _check_colours(file: _File, name: str) -> None:
    image = file.image
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA") or ";16" in file.rawmode:
        raise InputError(
            f"image {name} is of mode {image.mode} (samples {file.rawmode}), which does not convert to 8-bit "
            "RGB without loss; save it as 8-bit RGB"
        )
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise InputError(
            f"image {name} has transparent pixels, whose colour is unknown; put it on a background and save it as RGB"
        )


def _read_indices(file: _File, name: str) -> UInt8[np.ndarray, "height width"]:
    """Return the class numbers stored in a mask, which are never looked up in its palette."""
    image = file.image
    if image.format in _JPEG:
        raise InputError(f"mask {name} is a JPEG, which changes class numbers; save masks as PNG")
    if image.mode not in ("1", "L", "P"):
        kind = "16-bit" if image.mode.startswith("I") else "colour-coded" if "RGB" in image.mode else "unsuitable"
        raise InputError(
            f"mask {name} is {kind} (mode {image.mode}): a mask holds class numbers, 0 to 255, in one channel "
            "of 8 bits; save it as PNG of mode L or P"
        )
    label = np.asarray(image).astype(np.uint8, copy=False)
    for rawmode, step in _GREY_STEP.items():
        if file.rawmode.startswith(rawmode):
            label = label // np.uint8(step)
    return label


def _turn_like_mask(image: Image.Image, shape: tuple[int, int], name: str) -> Image.Image:
    """Turn the image by its EXIF orientation if its mask has the size of the turned image."""
    orientation = read_orientation(image, name)
    if orientation == 1:
        return image
    if orientation < 5 or image.width == image.height:
        raise InputError(
            f"image {name} has EXIF orientation {orientation}, and its size cannot tell whether the mask was drawn "
            "on the stored or on the turned image; turn the pixels to fit the mask and remove the tag"
        )
    return turn_upright(image, orientation) if shape == (image.width, image.height) else image
