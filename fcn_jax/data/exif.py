"""Read the orientation of photographs from their EXIF data, which may be damaged."""

import sys

from PIL import Image

ORIENTATION = 0x0112  # EXIF tag
# Pillow's exif_transpose also writes the other EXIF data anew, which fails where those are damaged.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(image: Image.Image, name: str) -> int:
    """Return the orientation, 1 to 8; 1 if there is none, or if the EXIF data are damaged, with a warning.

    Args:
        image: an opened image.
        name: the name of its file, for the warning.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # Pillow raises errors of many types for damaged data
        warn_of_damage(name, f"EXIF data ({error})")
        return 1
    return orientation if orientation in TURNS else 1


def load_stored(image: Image.Image, name: str) -> tuple[Image.Image, int]:
    """Load an opened image, and return its pixels as they are stored and its orientation, 1 to 8.

    Args:
        image: an image that is not loaded.
        name: the name of its file, for the warning.
    """
    orientation = read_orientation(image, name)
    image.load()
    if image.format == "TIFF" and orientation != 1:  # Pillow turns TIFFs, and only these, while it loads them
        return image.transpose(TURNS[{6: 8, 8: 6}.get(orientation, orientation)]), orientation
    return image, orientation


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by its EXIF orientation, 1 to 8."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def warn_of_damage(name: str, part: str) -> None:
    """Tell the user about a damaged part of a file that the pixels do not depend on."""
    print(f"warning: {part} of {name} is damaged and ignored; the pixels are whole", file=sys.stderr)
