"""Segments photographs with a trained network."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_jax.datasets import Example
from fcn_jax.errors import InputError
from fcn_jax.evaluate import Forward, segment
from fcn_jax.labels import IGNORE
from fcn_jax.visualize import overlay, save_palette_png, save_png

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The image files that files, folders and globs name, each once, in order.

    Raises:
        InputError: a name or glob matches nothing, a folder holds no image, or two files would get the same result.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            missing = f"folder {path} holds no image ({' '.join(SUFFIXES)})"
        elif path.is_file():
            found, missing = [path], ""
        else:
            found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
            missing = f"{pattern} matches no file; give an image, a folder or a glob"
        if not found:
            raise InputError(missing)
        files += [file for file in found if file not in files]
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(file.stem, file)
        if other != file:
            raise InputError(f"{other} and {file} would both be written as {file.stem}.png; predict them one by one")
    return files


def read_image(file: Path) -> UInt8[np.ndarray, "height width 3"]:
    """An image file as upright RGB.

    Raises:
        InputError: the file is no image or is cut short.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image ({error}); give a whole JPEG, PNG or the like") from error


def predict(
    forward: Forward,
    variables: Any,
    files: Sequence[Path],
    out: Path,
    palette: UInt8[np.ndarray, "classes 3"],
    batch_size: int,
) -> Iterator[Path]:
    """Writes `<stem>.png` (class indices, mode P, the image's own size) and `<stem>_overlay.png` for each file.

    Args:
        forward: from `evaluate.make_forward`.
        variables: parameters and batch statistics.
        files: images with different stems.
        out: folder, made if it is not there.
        palette: the classes' colours.
        batch_size: images at once, a multiple of the devices.

    Yields:
        The label file of each image once it is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for example, class_map, _, _ in segment(forward, variables, _unlabelled(files), batch_size):
        save_png(overlay(example.image, class_map, palette), out / f"{example.name}_overlay.png")
        save_palette_png(class_map, palette, out / f"{example.name}.png")
        yield out / f"{example.name}.png"


def _unlabelled(files: Sequence[Path]) -> Iterator[Example]:
    for file in files:
        image = read_image(file)
        yield Example(file.stem, image, np.full(image.shape[:2], IGNORE, np.uint8))
