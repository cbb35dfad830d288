"""Read an image file to segment."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.exif import load_stored, turn_upright, warn_of_damage
from fcn_jax.data.headers import count_bands, count_frames, is_deep, read_raw_mode, require_depth, require_picture
from fcn_jax.data.image_kinds import open_image
from fcn_jax.data.large_images import make_room
from fcn_jax.data.pictures import convert_to_rgb
from fcn_jax.data.png import drop_damaged_chunks
from fcn_jax.errors import InputError


def print_warning(text: str) -> None:
    """Print a warning on the error stream."""
    print(f"warning: {text}", file=sys.stderr)


def read_image(file: Path, warn: Callable[[str], None] = print_warning) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image file as RGB, turned upright by its EXIF orientation.

    An alpha channel and further bands are left out, and so are all frames or pages but the first; the latter two with a
    warning.

    Args:
        file: the file.
        warn: is called with a sentence about bands, frames or pages that are left out.

    Raises:
        InputError: the file is not an image, is incomplete, has more than 8 bits a sample, or needs more memory than is
            free.
    """
    with make_room(file):
        try:
            data = file.read_bytes()
            require_picture(data, str(file))
            data, damaged = drop_damaged_chunks(data)
            with open_image(io.BytesIO(data)) as image, open_image(io.BytesIO(data)) as other:
                require_depth(image, data, str(file))
                mode, raw_mode = image.mode, read_raw_mode(image)
                (bands, used), frames = count_bands(image), count_frames(other)
                rgb = np.asarray(convert_to_rgb(turn_upright(*load_stored(image, file.name))))
        except (InputError, MemoryError):
            raise
        except Exception as error:  # decoders raise errors of any type on damaged data
            raise InputError(
                f"{file} cannot be read as an image ({error}); give a whole JPEG, PNG or the like"
            ) from error
    if damaged:
        warn_of_damage(file.name, f"the part {', '.join(damaged)}")
    if bands > used:
        warn(f"{file.name} has {bands} bands; the first {used} are used")
    if frames > 1:
        warn(f"{file.name} has {frames} frames or pages; the first one is used")
    if mode.startswith(("I", "F")) or is_deep(raw_mode, data):
        # Pillow clips grey values at 255, which makes nearly all of them white, and keeps the upper 8 bits of colours.
        raise InputError(f"{file} has more than 8 bits a sample (mode {mode}); save it with 8 bits")
    return rgb
