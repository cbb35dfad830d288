"""Segment image files with a trained network and write the class maps as PNGs."""

import glob
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fcn_jax.data.dataset import Example
from fcn_jax.data.large_images import read_size
from fcn_jax.errors import InputError
from fcn_jax.inference.read_image import read_image
from fcn_jax.inference.segment import Forward, Segmented, make_unlabelled, segment
from fcn_jax.inference.visualize import overlay, save_palette_png, save_png
from fcn_jax.runtime.threads import map_in_threads

# Formats that Pillow recognises and does not decode itself.
UNDECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Find the image files that file names, folders and globs stand for, each file once, in this order.

    Raises:
        InputError: there are no patterns, a name or glob matches nothing, a folder has no image, or two files would
            have the same result file.
    """
    if not patterns:
        raise InputError("no images are named; give files, folders or globs after the run directory")
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found, others = _list_folder(path)
            kinds = f", only files of {_count_suffixes(others)}" if others else ""
            missing = f"folder {path} holds no image{kinds}; give another folder, or files by name"
        elif path.is_file():
            found, missing = [path], ""
        else:
            found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
            missing = f"{pattern} matches no file; give an image, a folder or a glob"
        if not found:
            raise InputError(missing)
        files += [file for file in found if file not in files]
    writers: dict[str, Path] = {}
    for file in files:
        for name in _name_results(file):
            other = writers.setdefault(name, file)
            if other != file:
                raise InputError(f"{other} and {file} would both be written as {name}; give each its own --out")
    return files


def describe_left_out(patterns: Sequence[str]) -> list[str]:
    """Describe the files that `find_images` leaves out of each folder, because Pillow does not read their kind."""
    listed = [(folder, _list_folder(folder)[1]) for folder in map(Path, patterns) if folder.is_dir()]
    return [
        f"{folder}: {len(others)} files are left out, which are of kinds that cannot be read: {_count_suffixes(others)}"
        for folder, others in listed
        if others
    ]


def predict(
    forward: Forward,
    variables: Any,
    files: Sequence[Path],
    out: Path,
    palette: UInt8[np.ndarray, "classes 3"],
    batch_size: int,
    workers: int = 4,
) -> Iterator[Path]:
    """Write `<stem>.png` (class indices, mode P, the image's own size) and `<stem>_overlay.png` for each file.

    Threads read images and write results while the devices compute, the largest images first. Each result file is
    complete or not there, also after Ctrl-C.

    Args:
        forward: from `segment.make_forward` with `labelled=False`.
        variables: parameters and batch statistics.
        files: images with different stems.
        out: folder for the results; it is made if it does not exist.
        palette: the colour of each class.
        batch_size: images to compute at once, a multiple of the number of devices.
        workers: number of threads that read, and number of threads that write.

    Yields:
        The label file of each image once it is written.

    Raises:
        InputError: `out` is not a folder that can be written to, or a result would overwrite one of `files`. If some
            files cannot be read, the error is raised once all other results are written.
    """
    written = {(out / name).resolve() for file in files for name in _name_results(file)}
    for file in files:
        if file.resolve() in written:
            raise InputError(f"{file} would be overwritten by a result; give another --out than {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder for the results ({error}); give another --out") from error

    def write(result: Segmented) -> Path:
        example, class_map = result.example, result.class_map
        file = out / f"{example.name}.png"
        try:
            save_png(overlay(example.image, class_map, palette), out / f"{example.name}_overlay.png")
            save_palette_png(class_map, palette, file)
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error}); make room, or give another --out") from error
        return file

    unreadable: list[str] = []
    # Largest first: smaller images can then use the programs of larger ones, and a lack of memory shows at once.
    sized = zip(map_in_threads(read_size, files, workers), files, strict=True)
    ordered = [file for _, file in sorted(sized, key=lambda pair: -math.prod(pair[0]))]
    results = segment(forward, variables, _read_examples(ordered, unreadable, workers), batch_size)
    yield from map_in_threads(write, results, workers)
    if unreadable:
        raise InputError("\n  ".join([f"{len(unreadable)} of {len(files)} images are left out:", *unreadable]))


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the images of a folder, and its other files. Hidden files and folders are in neither list."""
    kinds = {suffix for suffix, kind in Image.registered_extensions().items() if kind in set(Image.OPEN) - {*UNDECODED}}
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and not file.is_dir())
    return (
        [file for file in files if file.suffix.lower() in kinds],
        [file for file in files if file.suffix.lower() not in kinds],
    )


def _count_suffixes(files: Sequence[Path]) -> str:
    """Count files by suffix, such as ".heic (2), .txt (1)"."""
    counts = Counter(file.suffix.lower() or "no suffix" for file in files)
    return ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common())


def _name_results(file: Path) -> tuple[str, str]:
    """Return the names of the files written for an image: class indices and overlay."""
    return f"{file.stem}.png", f"{file.stem}_overlay.png"


def _read_examples(files: Sequence[Path], unreadable: list[str], workers: int) -> Iterator[Example]:
    """Read images in threads; append the errors of those that cannot be read to `unreadable`."""

    def read(file: Path) -> Example | InputError:
        try:
            return make_unlabelled(file.stem, read_image(file))
        except InputError as error:
            return error

    for result in map_in_threads(read, files, workers):
        if isinstance(result, InputError):
            unreadable.append(str(result))
        else:
            yield result
