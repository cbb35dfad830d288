"""Open the image files of examples, and refuse those that Pillow reads only in part."""

import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fcn_jax.data.exif import load_stored, read_orientation, warn_of_damage
from fcn_jax.data.headers import count_bands, count_frames, read_raw_mode, require_depth, require_picture
from fcn_jax.data.image_kinds import open_image
from fcn_jax.data.png import drop_damaged_chunks
from fcn_jax.errors import InputError

JPEG = ("JPEG", "MPO")  # MPO, made by some phones: a JPEG followed by further images


class Picture(NamedTuple):
    """A decoded image file.

    Attributes:
        data: the file, without damaged parts that the pixels do not depend on.
        format: Pillow's name of its format.
        image: the pixels as they are stored, not turned. Those of an upright JPEG in RGB are not loaded yet.
        orientation: the EXIF orientation, 1 to 8.
        raw_mode: Pillow's name for the layout of the samples in the file. Loading turns 16-bit colours into 8-bit ones.
    """

    data: bytes
    format: str
    image: Image.Image
    orientation: int
    raw_mode: str


def open_picture(file: Path, what: str) -> Picture:
    """Read an image file, and check that it is whole and has one picture.

    Args:
        file: the file.
        what: "image" or "mask", for messages.

    Raises:
        InputError: the file cannot be read or decoded, or has frames, bands or bits that Pillow leaves out.
    """
    name = f"{what} {file.name}"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{name} cannot be read in {file.parent} ({error.strerror}): an example is an image and a mask, so add "
            "the file or remove its partner"
        ) from error
    require_picture(data, name)
    try:
        data, damaged = drop_damaged_chunks(data)
        opened = open_image(io.BytesIO(data))
        raw_mode, (bands, used) = read_raw_mode(opened), count_bands(opened)
        require_depth(opened, data, name)
        with open_image(io.BytesIO(data)) as other:
            frames = count_frames(other)
            if other.format == "PNG":
                other.verify()  # the file's checksums; decoding alone lets some damaged pixels pass
            # A JPEG that is kept byte for byte has to be read, but its pixels are not used: only an eighth of its rows
            # and columns is computed. libjpeg does not scale lossless files, which have the marker below.
            is_kept = other.format in JPEG and other.mode == "RGB" and read_orientation(other, file.name) == 1
            if is_kept and b"\xff\xc3" not in data:
                other.draft(None, (1, 1))
                other.load()
                image, orientation = opened, 1
            else:
                image, orientation = load_stored(opened, file.name)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError(
            f"{name} cannot be decoded ({error}): it is incomplete, damaged or not a picture; get it anew"
        ) from error
    if frames > 1:
        raise InputError(
            f"{name} has {frames} frames or pages: an example is one image and one mask; save the one that is meant "
            "as PNG"
        )
    if bands > used:
        raise InputError(
            f"{name} has {bands} bands, of which {used} would be used: an image has red, green and blue, a mask "
            "one band of class numbers; save these alone as PNG"
        )
    if damaged:
        warn_of_damage(file.name, f"the part {', '.join(damaged)}")
    return Picture(data, str(opened.format), image, orientation, raw_mode)


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB. What is transparent gets the colour that is stored for it."""
    # Pillow warns of palettes with transparent colours unless the transparency is kept first.
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
