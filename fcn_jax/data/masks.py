"""The samples that a mask file stores.

They are class numbers, or colours that stand for classes. So they are taken from lossless files only, and as they are
stored: not scaled to 0..255, not inverted in a TIFF in which 0 is white, not turned, and looked up in a palette only if
the user has given the classes of colours. What cannot be read so is an error.
"""

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.headers import is_deep, parse_raw_mode
from fcn_jax.data.pictures import Picture
from fcn_jax.errors import InputError

LOSSLESS = ("BMP", "GIF", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF")
LOSSLESS_IN_TIFF = (
    "raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd",
    "tiff_ccitt", "tiff_raw_16", "group3", "group4",
)  # fmt: skip


def read_samples(mask: Picture, name: str, in_colour: bool) -> UInt8[np.ndarray, "height width *rgb"]:
    """Return the numbers or colours that a mask stores.

    Args:
        mask: the opened file, with 1 to 32 bits a sample.
        name: its name, for messages.
        in_colour: whether a mask with a palette stands for its colours, not for its indices.

    Returns:
        Numbers, [height, width], or colours, [height, width, 3].

    Raises:
        InputError: the file may be lossy, has a tag that turns it, has transparent pixels, or has no whole numbers
            from 0 to 255.
    """
    image, kind = mask.image, mask.format
    if kind == "TIFF" and image.info["compression"] not in LOSSLESS_IN_TIFF:
        kind = f"TIFF with compression {image.info['compression']}"
    if kind not in LOSSLESS:
        raise InputError(
            f"mask {name} has the format {kind}, which may change class numbers: they are read from "
            f"{', '.join(LOSSLESS)} without lossy compression; save masks as PNG"
        )
    if mask.orientation != 1:
        raise InputError(
            f"mask {name} has EXIF orientation {mask.orientation}, so it is unclear how its pixels lie on the image; "
            "turn the pixels to fit the image and remove the tag"
        )
    if image.mode.startswith("I") and "scaled" not in mask.raw_mode:
        return _narrow(np.asarray(image), name)
    whole = image.mode in ("RGB", "RGBA") and not is_deep(mask.raw_mode, mask.data)
    if whole or (image.mode == "P" and in_colour):
        return _read_colours(mask, name)
    layout = parse_raw_mode(mask.raw_mode)
    if layout is None:
        raise InputError(
            f"mask {name} is unsuitable (mode {image.mode}, samples {mask.raw_mode}): a mask holds class numbers, 0 to "
            "255, in one channel; save it as PNG of mode L or P"
        )
    if layout.inverted and kind != "TIFF":
        raise InputError(
            f"mask {name} has 0 for white, as {kind} files of 1 bit do, and most programs read 1 for it: its class "
            "numbers are unclear; save it as PNG"
        )
    samples = np.asarray(image).astype(np.uint8, copy=False)
    if kind == "GIF" and layout.mode == "P" and samples.max() > 1:
        raise InputError(
            f"mask {name} is a GIF of more than two colours, which programs number anew when they save it: its class "
            "numbers are unclear; save masks as PNG"
        )
    largest = 2**layout.bits - 1
    if layout.mode == "L" and layout.bits < 8:
        samples = samples // np.uint8(255 // largest)  # Pillow scales grey values to 0..255
    return np.uint8(largest) - samples if layout.inverted else samples


def _read_colours(mask: Picture, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return the colours of a mask in RGB or with a palette."""
    colours = np.asarray(mask.image.convert("RGBA"))
    if colours[..., 3].min() < 255:
        raise InputError(
            f"mask {name} has transparent pixels, whose class is unknown; save it without an alpha channel"
        )
    return colours[..., :3]


def _narrow(samples: np.ndarray, name: str) -> UInt8[np.ndarray, "height width"]:
    """Return samples of 16 or 32 bits as uint8."""
    low, high = samples.min(), samples.max()
    if low < 0 or high > 255:
        raise InputError(
            f"mask {name} has samples from {low} to {high}: class numbers and void are 0 to 255; give void the number "
            "255 and save the mask with 8 bits"
        )
    return samples.astype(np.uint8)
