"""Read images of any size for which there is memory.

Pillow warns above 89 million pixels and refuses twice as many, as a guard against hostile files on servers. Here the
free memory decides. A file whose header has fewer pixels than what it contains, as an icon may, is still refused.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from fcn_jax.data.image_kinds import open_image
from fcn_jax.errors import InputError
from fcn_jax.runtime.host_memory import read_free_memory

LARGE = 1 << 26  # pixels; larger images are read one at a time, so that threads do not share what is free
# Pillow asks whether its limit is None, and then doubles it. If another thread set it to None in between, this would
# fail, and the error would be that the image is of no known format. So "no limit" is a number.
ANY = 1 << 62  # pixels
BYTES = 20  # per pixel, at most, to read an image and its mask: Pillow's images, arrays, copies and encoded files

_turn = threading.Lock()
_lock = threading.Lock()
_lifted: list[int] = []  # the limits of the blocks that are within `lift_limit`
_limit: int | None = None  # Pillow's limit outside of them


@contextlib.contextmanager
def lift_limit(pixels: int = ANY) -> Iterator[None]:
    """Let Pillow open images of a number of pixels, or of any, in this block, and in other threads meanwhile."""
    global _limit
    with _lock:
        if not _lifted:
            _limit = Image.MAX_IMAGE_PIXELS
        _lifted.append(pixels)
        _set_limit()
    try:
        yield
    finally:
        with _lock:
            _lifted.remove(pixels)
            _set_limit()


def _set_limit() -> None:
    Image.MAX_IMAGE_PIXELS = max(_lifted) if _lifted else _limit


@contextlib.contextmanager
def make_room(*files: Path) -> Iterator[None]:
    """Let the block read image files of any size, and wait for other threads that read large ones.

    Raises:
        InputError: the largest file needs more memory than is free, or memory runs out in the block.
    """
    width, height, name = max(((*read_size(file), file.name) for file in files), key=lambda size: size[0] * size[1])
    large = width * height > LARGE
    with lift_limit(max(width * height, LARGE)), _turn if large else contextlib.nullcontext():
        need, free = BYTES * width * height, read_free_memory() if large else math.inf
        try:
            if need > free:
                raise MemoryError
            yield
        except MemoryError as error:
            raise InputError(
                f"{name} has {width}x{height} pixels; to read it takes up to {need / 1e9:.1f} GB of memory, and "
                f"{read_free_memory() / 1e9:.1f} GB are free: cut it into tiles, or close other programs"
            ) from error


def read_size(file: Path) -> tuple[int, int]:
    """Read an image's width and height from its header; zeros if it cannot be read."""
    try:
        with lift_limit(), open_image(file) as image:
            return image.size
    except Exception:  # Pillow raises errors of many types for damaged data
        return 0, 0
