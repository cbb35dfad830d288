"""Read from the header of an image file what Pillow does not decode, or decodes wrongly."""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from fcn_jax.errors import InputError
from fcn_jax.runtime.files import is_lfs_pointer

_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 254, 258, 277  # TIFF tags
_SECONDARY = 1 | 4  # types of a page that is a smaller version, or the transparency mask, of another page
_JPEG_2000 = b"\xff\x4f\xff\x51"  # the markers at the start of a codestream
_LAYOUT = re.compile(r"(?P<mode>[1LP])(;(?P<bits>[124])?(?P<inverted>I)?R?)?")


def require_picture(data: bytes, name: str) -> None:
    """Raise InputError if a file is what Git leaves in place of a picture that was not fetched."""
    if is_lfs_pointer(data):
        raise InputError(f"{name} is a pointer of Git LFS, not the picture itself; fetch it with git lfs pull")


class Layout(NamedTuple):
    """How numbers of 1 to 8 bits are stored.

    Attributes:
        mode: Pillow's mode: "1" for bits, "L" for grey, "P" for indices into a palette.
        bits: bits of a number.
        inverted: whether the decoder subtracts each number from the largest one, because 0 is white.
    """

    mode: str
    bits: int
    inverted: bool


def read_raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name for the layout of the samples in the file, such as L;4 for grey of 4 bits.

    Loading loses it. "L scaled from 0..20" stands for a file in which 20 is white.
    """
    if not image.tile:
        return image.mode
    decoder, _, _, args = image.tile[0]
    name, *more = args if isinstance(args, tuple) else (args,)
    if decoder in ("ppm", "ppm_plain") and more and more != [255]:
        return f"{name} scaled from 0..{more[0]}"
    return name if isinstance(name, str) else image.mode  # a GIF has numbers there


def parse_raw_mode(raw_mode: str) -> Layout | None:
    """Return the layout that a raw mode names, or None if it is not one of numbers of 1 to 8 bits."""
    found = _LAYOUT.fullmatch(raw_mode)
    if not found:
        return None
    return Layout(found["mode"], int(found["bits"] or (1 if found["mode"] == "1" else 8)), bool(found["inverted"]))


def is_deep(raw_mode: str, data: bytes) -> bool:
    """Return whether a file has samples of more than 8 bits. Pillow keeps 8 of them in colour images.

    It does so with AVIF, too, which does not count: cameras make them with 10 bits, and scale them to the whole range.

    Args:
        raw_mode: from `read_raw_mode`.
        data: the file.
    """
    scaled_from = raw_mode.partition(" scaled from 0..")[2]
    wide = ";16" in raw_mode and not raw_mode.startswith("BGR;16")  # in a BMP, 16 bits for all three colours
    return wide or int(scaled_from or 0) > 255 or _read_jpeg_2000_bits(data) > 8


def _read_jpeg_2000_bits(data: bytes) -> int:
    """Return the bits of the largest sample of a JPEG 2000 file; 0 for other files.

    ITU-T T.800, A.5.1: the number of components is 40 bytes after the codestream's start, and each has three bytes, of
    which the first one is its number of bits less one, with 128 added to signed samples.
    """
    start = data.find(_JPEG_2000) if data[4:8] == b"jP  " or data.startswith(_JPEG_2000) else -1
    if start < 0:
        return 0
    count = int.from_bytes(data[start + 40 : start + 42])
    depths = data[start + 42 : start + 42 + 3 * count : 3]
    return max(((depth & 127) + 1 for depth in depths), default=0)


def count_bands(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Count the samples that a pixel has in the file, and those that Pillow reads. A TIFF may have more."""
    used = len(image.getbands())
    return image.tag_v2.get(_SAMPLES_PER_PIXEL, used) if isinstance(image, TiffImageFile) else used, used


def require_depth(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
    """Check that Pillow's decoder takes as many bits for a sample as there are.

    It does not for a BMP of 8 bits with the colours black and white, and for a TIFF of 1 to 4 or 16 bits in planes.

    Args:
        image: the opened file, not loaded.
        data: its bytes.
        name: its name, for the message.

    Raises:
        InputError: it takes another number.
    """
    raw_mode = read_raw_mode(image)
    layout = parse_raw_mode(raw_mode)
    taken = layout.bits if layout else 8 if raw_mode in ("R", "C") else None  # R, C: the first plane of colours
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]
    elif image.format == "BMP":
        bits = data[28] if data[14] > 12 else data[24]  # the header of OS/2 has 12 bytes
    else:
        return
    if taken and bits != taken:
        raise InputError(
            f"{name} has samples of {bits} bits, which the decoder of {image.format} files takes for {taken}; "
            "save it as PNG"
        )


def count_frames(image: ImageFile.ImageFile) -> int:
    """Count the frames of an animation or the pages of a document; the image is at another frame afterwards.

    Smaller versions of a TIFF's page are not counted, nor what follows a phone's photograph or makes up a PSD.
    """
    if isinstance(image, TiffImageFile):
        return 1 + sum(not kind & _SECONDARY for kind in _list_page_types(image))
    return 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)


def _list_page_types(image: TiffImageFile) -> Iterator[int]:
    """Yield the type of each page after the first."""
    for page in itertools.count(1):
        try:
            image.seek(page)
        except SyntaxError:  # its pixels are of a kind that Pillow does not read; its tags are there
            pass
        except Exception:  # EOFError if the file is whole
            return
        yield image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
