"""Which files are images, by their suffix or their content, and the words about the other ones."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

# Formats that Pillow recognises and does not decode itself. For EPS it would start Ghostscript, which runs the program
# that such a file is. An icon (ICO) contains images, which Pillow decodes as it opens the file, whatever their size.
_LEFT_OUT = ("BUFR", "EPS", "GRIB", "HDF5", "ICO", "MPEG", "WMF")
# Files that systems put into every folder.
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")


def open_image(file: Path | io.BytesIO) -> ImageFile.ImageFile:
    """Open an image file with Pillow, if its content is of a format that is read here, whatever its suffix.

    Raises:
        Exception: Pillow's errors for files that are no images; damaged ones can raise any.
    """
    Image.init()
    try:
        return Image.open(file, formats=[kind for kind in Image.ID if kind not in _LEFT_OUT])
    except UnidentifiedImageError as error:  # its text names the object that Pillow reads from, not the file
        raise UnidentifiedImageError("cannot identify image file") from error


def split_by_kind(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Split files into those whose suffix is that of an image which is read here, and the others, both in order."""
    kinds = Image.registered_extensions()  # also loads Pillow's decoders
    suffixes = {suffix for suffix, kind in kinds.items() if kind in Image.OPEN and kind not in _LEFT_OUT}
    images: list[Path] = []
    others: list[Path] = []
    for file in files:
        if file.suffix.lower() in suffixes:
            images.append(file)
        elif file.name.lower() not in _OF_SYSTEMS:
            others.append(file)
    return images, others


def describe_others(files: Sequence[Path]) -> str:
    """Count files that are no images by suffix, such as "3 files of kinds that cannot be read: .heic (2), .txt (1)"."""
    counts = Counter(file.suffix.lower() or "no suffix" for file in files)
    kinds = ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common())
    return f"{len(files)} file{'s' * (len(files) > 1)} of kinds that cannot be read: {kinds}"
