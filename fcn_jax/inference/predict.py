"""Segments photographs with a trained network."""

import glob
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError
from fcn_jax.inference.evaluate import Forward, Segmented, segment
from fcn_jax.inference.visualize import overlay, save_palette_png, save_png
from fcn_jax.runtime.threads import map_in_threads

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The image files that files, folders and globs name, each once, in order.

    Raises:
        InputError: nothing is named, a name or glob matches nothing, a folder holds no image, or two files would get
            the same result.
    """
    if not patterns:
        raise InputError("no images are named; give files, folders or globs after the run directory")
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            visible = (file for file in path.iterdir() if not file.name.startswith("."))
            found = sorted(file for file in visible if file.suffix.lower() in SUFFIXES)
            missing = f"folder {path} holds no image ({' '.join(SUFFIXES)})"
        elif path.is_file():
            found, missing = [path], ""
        else:
            found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
            missing = f"{pattern} matches no file; give an image, a folder or a glob"
        if not found:
            raise InputError(missing)
        files += [file for file in found if file not in files]
    results: dict[str, Path] = {}
    for file in files:
        for name in _results(file):
            other = results.setdefault(name, file)
            if other != file:
                raise InputError(f"{other} and {file} would both be written as {name}; give each its own --out")
    return files


def read_image(file: Path) -> UInt8[np.ndarray, "height width 3"]:
    """An image file as upright RGB.

    Raises:
        InputError: the file is no image, is cut short, or is grey with more than 8 bits.
    """
    try:
        with Image.open(file) as image:
            upright, mode = ImageOps.exif_transpose(image), image.mode
            rgb = np.asarray(upright.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # a decoder may fail in any way on damaged data
        raise InputError(f"{file} cannot be read as an image ({error}); give a whole JPEG, PNG or the like") from error
    if mode.startswith(("I", "F")):
        # Pillow would cut its values off at 255: nearly all white.
        raise InputError(f"{file} has more than 8 bits a sample (mode {mode}); save it with 8 bits")
    return rgb


def predict(
    forward: Forward,
    variables: Any,
    files: Sequence[Path],
    out: Path,
    palette: UInt8[np.ndarray, "classes 3"],
    batch_size: int,
    workers: int = 4,
) -> Iterator[Path]:
    """Writes `<stem>.png` (class indices, mode P, the image's own size) and `<stem>_overlay.png` for each file.

    Files are read ahead, the largest images first, and written behind while the device computes. Each is complete or
    not there, also after Ctrl-C.

    Args:
        forward: from `evaluate.make_forward`; it needs no labels.
        variables: parameters and batch statistics.
        files: images with different stems.
        out: folder, made if it is not there.
        palette: the classes' colours.
        batch_size: images at once, a multiple of the devices.
        workers: threads that read, and as many that write.

    Yields:
        The label file of each image once it is written.

    Raises:
        InputError: `out` is not a folder that can be written to, or a result would take the place of one of `files`;
            or, once all others are written, those that cannot be read.
    """
    written = {(out / name).resolve() for file in files for name in _results(file)}
    for file in files:
        if file.resolve() in written:
            raise InputError(f"{file} would be overwritten by a result; give another --out than {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder for the results ({error}); give another --out") from error

    def write(result: Segmented) -> Path:
        example, class_map, _, _ = result
        file = out / f"{example.name}.png"
        try:
            save_png(overlay(example.image, class_map, palette), out / f"{example.name}_overlay.png")
            save_palette_png(class_map, palette, file)
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error}); make room, or give another --out") from error
        return file

    unreadable: list[str] = []
    # Where they are computed one at a time, as on CPUs, smaller images then borrow the programs of larger ones, and
    # memory that does not suffice shows at once.
    sized = zip(map_in_threads(_pixels, files, workers), files, strict=True)
    ordered = [file for _, file in sorted(sized, key=lambda pair: -pair[0])]
    results = segment(forward, variables, _unlabelled(ordered, unreadable, workers), batch_size)
    yield from map_in_threads(write, results, workers)
    if unreadable:
        raise InputError("\n  ".join([f"{len(unreadable)} of {len(files)} images are left out:", *unreadable]))


def _results(file: Path) -> tuple[str, str]:
    """The names of what is written for an image: class indices and overlay."""
    return f"{file.stem}.png", f"{file.stem}_overlay.png"


def _pixels(file: Path) -> int:
    """How many an image has, by its header; 0 where it cannot be read, which is told later."""
    try:
        with Image.open(file) as image:
            return image.width * image.height
    except Exception:
        return 0


def _unlabelled(files: Sequence[Path], unreadable: list[str], workers: int) -> Iterator[Example]:
    def read(file: Path) -> Example | InputError:
        try:
            image = read_image(file)
        except InputError as error:
            return error
        return Example(file.stem, image, np.full(image.shape[:2], IGNORE, np.uint8))

    for result in map_in_threads(read, files, workers):
        if isinstance(result, InputError):
            unreadable.append(str(result))
        else:
            yield result
