"""Read files of inputs that are not pictures in RGB: depth and other channels of 8 or 16 bits."""

from pathlib import Path

import numpy as np

from fcn_jax.data.inputs import Input, Pixels
from fcn_jax.data.pictures import Picture, open_picture
from fcn_jax.errors import InputError


def read_bands(file: Path, given: Input) -> Pixels:
    """Read the channels of an input, as they are stored.

    Args:
        file: a picture with one channel of 8 or 16 bits, such as a PNG, or three of 8 bits.
        given: the input.

    Raises:
        InputError: the file cannot be read, or has other channels than the input.
    """
    array = _read_picture(open_picture(file, f"{given.name} image"), file, given.name)
    if given.channels not in (None, array.shape[-1]):
        raise InputError(
            f"{given.name} image {file.name} has {array.shape[-1]} channels; it must have {given.channels}: save the "
            "channels that are meant alone"
        )
    if given.dtype not in (None, array.dtype):
        bits = [8 * np.dtype(kind).itemsize for kind in (array.dtype, given.dtype)]
        raise InputError(
            f"{given.name} image {file.name} has samples of {bits[0]} bits; they must have {bits[1]}, in the unit of "
            "the other files: save it anew"
        )
    return array


def _read_picture(found: Picture, file: Path, name: str) -> Pixels:
    image = found.image
    if found.orientation != 1:
        raise InputError(
            f"{name} image {file.name} has EXIF orientation {found.orientation}; turn its pixels and remove the tag"
        )
    if image.mode not in ("L", "RGB", "I", "I;16", "I;16B", "I;16L") or (
        image.mode == "RGB" and ";16" in found.raw_mode
    ):
        raise InputError(
            f"{name} image {file.name} is of mode {image.mode} (samples {found.raw_mode}); it must have one channel of "
            "8 or 16 bits, or three of 8: save it as such a PNG"
        )
    array = np.asarray(image)
    if array.min(initial=0) < 0 or array.max(initial=0) >= 1 << 16:
        raise InputError(
            f"{name} image {file.name} has samples from {array.min()} to {array.max()}; they must be within 0 to "
            f"{(1 << 16) - 1}: scale them, and save it as PNG of 16 bits"
        )
    array = array.astype(np.uint8 if image.mode in ("L", "RGB") else np.uint16)
    return array if array.ndim == 3 else array[..., None]
