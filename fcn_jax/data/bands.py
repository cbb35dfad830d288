"""Read files of inputs that are not pictures in RGB: depth and other channels of 8 or 16 bits.

Pillow decodes at most four channels, and cuts those of 16 bits to 8 unless there is one. TIFFs with others are read by
tifffile, which is needed for them alone.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fcn_jax.data.headers import count_bands, count_frames, is_deep, parse_raw_mode
from fcn_jax.data.image_kinds import open_image
from fcn_jax.data.inputs import Input, Pixels
from fcn_jax.data.pictures import Picture, open_picture
from fcn_jax.errors import InputError

_MOST_SAMPLES_PER_BYTE = 2000  # deflate makes one byte of at most 1032


def read_bands(file: Path, given: Input) -> Pixels:
    """Read the channels of an input, as they are stored.

    Args:
        file: a .npy file, [height, width] or [height, width, channels], uint8 or uint16; a TIFF with any number of
            channels of 8 or 16 bits; or another picture with one channel, or with three of 8 bits.
        given: the input.

    Raises:
        InputError: the file cannot be read, or has other channels than the input.
    """
    name = f"{given.name} image {file.name}"
    match file.suffix.lower():
        case ".npy":
            array = _read_npy(file, name)
        case ".tif" | ".tiff" if not _has_one_channel(file):
            array = _read_tiff(file, name)
        case _:
            array = _read_picture(open_picture(file, f"{given.name} image"), name)
    if given.channels not in (None, array.shape[-1]):
        raise InputError(
            f"{name} has {array.shape[-1]} channels; it must have {given.channels}: save those that are meant alone"
        )
    if given.dtype not in (None, array.dtype):
        bits = [8 * np.dtype(kind).itemsize for kind in (array.dtype, given.dtype)]
        raise InputError(
            f"{name} has samples of {bits[0]} bits; they must have {bits[1]}, in the unit of the other files: "
            "save it anew"
        )
    return array


def _read_npy(file: Path, name: str) -> Pixels:
    try:
        # A map of the file finds a header that promises more than there is, before memory is taken for it.
        array = np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{name} cannot be read ({error}); write it anew with numpy.save") from error
    return _check_bands(array, name)


def _has_one_channel(file: Path) -> bool:
    try:
        with open_image(file) as image:
            return count_bands(image)[0] == count_frames(image) == 1
    except Exception:  # Pillow does not know many TIFFs with several channels
        return False


def _read_tiff(file: Path, name: str) -> Pixels:
    try:
        import tifffile  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{name} is a TIFF with several channels, and reading them needs tifffile: pip install 'fcn-jax[bands]'"
        ) from error
    try:
        with tifffile.TiffFile(file) as opened:
            seen = set()
            for page in opened.pages:  # of pages that point in a circle tifffile would make series for ever
                if page.offset in seen:
                    raise ValueError("its pages point in a circle")
                seen.add(page.offset)
            series = opened.series[0]
            if series.size > _MOST_SAMPLES_PER_BYTE * file.stat().st_size:
                raise ValueError(f"{series.size} samples in {file.stat().st_size} bytes")
            array, axes = series.asarray(), series.axes
        if array.ndim == 3 and axes[-2:] == "YX":  # the channels one after the other
            array = np.moveaxis(array, 0, -1)
    except Exception as error:
        raise InputError(f"{name} cannot be decoded ({error}); save it anew, uncompressed or as .npy") from error
    return _check_bands(array, name)


def _check_bands(array: Any, name: str) -> Pixels:
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise InputError(
            f"{name} is {array.dtype} {list(array.shape)}; it must be uint8 or uint16, [height, width, channels]: "
            "scale other numbers to whole ones from 0 to 65535"
        )
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _read_picture(found: Picture, name: str) -> Pixels:
    image = found.image
    if found.orientation != 1:
        raise InputError(f"{name} has EXIF orientation {found.orientation}; turn its pixels and remove the tag")
    # Pillow inverts samples of which 0 is white, and scales those of another range to 8 or 16 bits.
    layout = parse_raw_mode(found.raw_mode)
    changed = "scaled" in found.raw_mode or (layout is not None and (layout.bits < 8 or layout.inverted))
    if (
        changed
        or image.mode not in ("L", "RGB", "I", "I;16", "I;16B", "I;16L")
        or (image.mode == "RGB" and is_deep(found.raw_mode, found.data))
    ):
        raise InputError(
            f"{name} is of mode {image.mode} (samples {found.raw_mode}); it must have one channel of "
            "8 or 16 bits, or three of 8: save it as such a PNG"
        )
    array = np.asarray(image)
    if array.min(initial=0) < 0 or array.max(initial=0) >= 1 << 16:
        raise InputError(
            f"{name} has samples from {array.min()} to {array.max()}; they must be within 0 to "
            f"{(1 << 16) - 1}: scale them, and save it as PNG of 16 bits"
        )
    array = array.astype(np.uint8 if image.mode in ("L", "RGB") else np.uint16)
    return array if array.ndim == 3 else array[..., None]
