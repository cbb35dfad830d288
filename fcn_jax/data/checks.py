"""Reads an image and its mask, and says in one line each what is wrong with them.

A mask holds class numbers: mode P (its indices; the colours mean nothing) or grey, 8 bits or fewer. An image is
kept as it is found where it is a JPEG or PNG in RGB; what turns into RGB without loss (grey, palette, an alpha
channel that hides nothing, other file types) is stored as PNG, and the rest is refused. EXIF orientation: the mask's
size says whether it was drawn on the stored or on the turned image, and the image is turned to fit; where the size
cannot tell, because both are the same, the image is refused rather than guessed at. A mask is kept without
its colours where it is an 8-bit PNG whose numbers are the labels.
"""

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import putchunk

from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError

_ORIENTATION = 0x0112  # EXIF tag
_JPEG = ("JPEG", "MPO")  # MPO: what some phones make, a JPEG with further images behind the first
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow spreads the values of a grey file of 2 or 4 bits over 0..255


class _File(NamedTuple):
    data: bytes
    image: ImageFile.ImageFile
    rawmode: str  # how samples lie in the file: Pillow forgets it on loading, and turns 16-bit colours into 8


def png(array: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """An image or label as PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=3)  # half the time of the usual 6
    return file.getvalue()


def read_pair(image: Path, mask: Path, num_classes: int, void: tuple[int, ...]) -> tuple[bytes, bytes, tuple[int, int]]:
    """Reads and checks the two files of an example.

    Args:
        image: the image file.
        mask: its mask.
        num_classes: labels are 0..num_classes - 1.
        void: labels that count as void besides 255.

    Returns:
        the image as JPEG or PNG in RGB, the label as PNG with 255 for void, and their height and width.

    Raises:
        InputError: with a line for each thing that is wrong.
    """
    problems = []
    try:
        found = _open(image, "image")
        _check_colours(found, image.name)
    except InputError as error:
        problems.append(str(error))
    try:
        drawn = _open(mask, "mask")
        indices = _indices(drawn, mask.name)
        label = check_label(indices, mask.name, num_classes, void)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    turned = _turn(found.image, label.shape, image.name)
    if label.shape != (turned.height, turned.width):
        raise InputError(
            f"mask {mask.name} has {label.shape[1]}x{label.shape[0]} pixels, its image {image.name} "
            f"{turned.width}x{turned.height}: they must be of one size; make the mask from this very image"
        )
    as_found = turned is found.image and turned.mode == "RGB" and found.image.format in (*_JPEG, "PNG")
    plain = label is indices and drawn.image.format == "PNG" and drawn.rawmode in ("L", "P")
    return (
        found.data if as_found else png(np.asarray(turned.convert("RGB"))),
        _without_palette(drawn.data) if plain else png(label),
        label.shape,
    )


def check_label(
    label: UInt8[np.ndarray, "height width"], name: str, num_classes: int, void: tuple[int, ...] = ()
) -> UInt8[np.ndarray, "height width"]:
    """Makes all void labels 255, and refuses labels that are no class.

    Raises:
        InputError: naming the labels and the file.
    """
    beyond = np.unique(label[(label >= num_classes) & (label != IGNORE)])
    wrong = [str(v) for v in beyond if v not in void]
    if wrong:
        labels, are = ("label", "is") if len(wrong) == 1 else ("labels", "are")
        raise InputError(
            f"{labels} {', '.join(wrong)} in {name} {are} outside 0..{num_classes - 1} and {are} not 255; "
            "correct the mask, or in data of your own add the class to classes.txt or the label to --data.void"
        )
    if void and (voids := np.isin(label, void)).any():
        return np.where(voids, np.uint8(IGNORE), label)
    return label


def _open(file: Path, what: str) -> _File:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{what} {file.name} cannot be read in {file.parent} ({error.strerror}): an example is an image and "
            "a mask; add the file, or take its partner out"
        ) from error
    try:
        image = Image.open(io.BytesIO(data))
        rawmode = str(image.tile[0].args) if image.tile else image.mode
        with Image.open(io.BytesIO(data)) as other:
            if other.format == "PNG":
                other.verify()  # the file's checksums; decoding alone lets some damaged pixels pass
            # A JPEG that is stored as it is has to be read, but no pixel of it is needed: an eighth of the rows and
            # columns is computed. Not of a lossless one (that marker), which libjpeg does not scale.
            as_it_is = other.format in _JPEG and other.mode == "RGB" and _orientation(other) == 1
            if as_it_is and b"\xff\xc3" not in data:
                other.draft(None, (1, 1))
                other.load()
            else:
                image.load()
    except Exception as error:  # a decoder may fail in any way on damaged data
        raise InputError(
            f"{what} {file.name} cannot be decoded ({error}): it is cut short, damaged or no picture; get it anew"
        ) from error
    return _File(data, image, rawmode)


def _check_colours(file: _File, name: str) -> None:
    image = file.image
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA") or ";16" in file.rawmode:
        raise InputError(
            f"image {name} is of mode {image.mode} (samples {file.rawmode}), which does not turn into 8-bit "
            "RGB without loss; save it as 8-bit RGB"
        )
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise InputError(
            f"image {name} has transparent pixels, whose colour is not known; put it on a background and save it as RGB"
        )


def _indices(file: _File, name: str) -> UInt8[np.ndarray, "height width"]:
    """The class numbers in a mask, taken as they lie in the file and never through a palette."""
    image = file.image
    if image.format in _JPEG:
        raise InputError(f"mask {name} is a JPEG, which changes class numbers; save masks as PNG")
    if image.mode not in ("1", "L", "P"):
        kind = "16-bit" if image.mode.startswith("I") else "colour-coded" if "RGB" in image.mode else "unfit"
        raise InputError(
            f"mask {name} is {kind} (mode {image.mode}): a mask holds class numbers, 0 to 255, in one channel "
            "of 8 bits; save it as PNG of mode L or P"
        )
    label = np.asarray(image).astype(np.uint8, copy=False)
    for rawmode, step in _GREY_STEP.items():
        if file.rawmode.startswith(rawmode):
            label = label // np.uint8(step)
    return label


def _without_palette(data: bytes) -> bytes:
    """A PNG of 8-bit indices as one of grey values, which lie in it in the same way; nothing is decoded."""
    kept, place, kind = io.BytesIO(), 8, b""
    kept.write(data[:place])
    while kind != b"IEND":  # it is there: the file has been verified
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]  # the kind of colour
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            putchunk(kept, kind, body)
        place += 12 + length
    return kept.getvalue()


def _orientation(image: Image.Image) -> int:
    """2 to 8 where EXIF says that the image is to be turned or mirrored, else 1."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in range(2, 9) else 1


def _turn(image: Image.Image, shape: tuple[int, int], name: str) -> Image.Image:
    """Follows the EXIF orientation if the mask does."""
    orientation = _orientation(image)
    if orientation == 1:
        return image
    if orientation < 5 or image.width == image.height:
        raise InputError(
            f"image {name} has EXIF orientation {orientation}, and its size cannot tell whether the mask was drawn "
            "on the stored or on the turned image; turn the pixels to fit the mask and remove the tag"
        )
    return ImageOps.exif_transpose(image) if shape == (image.width, image.height) else image
