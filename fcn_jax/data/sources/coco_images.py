"""The images and splits of data in COCO's formats: what a JSON file says of its images, and where they are."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fcn_jax.data.sources.json_parts import get_part, get_path
from fcn_jax.data.sources.listing import require_split_name
from fcn_jax.errors import InputError

_NAMES = {"valid": "val", "train2017": "train", "val2017": "val", "train2014": "train", "val2014": "val"}


class CocoImage(NamedTuple):
    """An image of a JSON file: the path of its file, which may be that on another machine, and height and width."""

    path: PurePosixPath
    shape: tuple[int, int]


def key_by_split(files: Iterable[tuple[str, Path]], dir: Path) -> dict[str, Path]:  # noqa: A002
    """Return the file of each split: train, val and test first. COCO's train2017 and the like become train and val.

    Args:
        files: pairs of what the file says of its split, and the file.
        dir: the folder of the data set, for messages.

    Raises:
        InputError: a name cannot be that of a split, or two files are of the same one.
    """
    found: dict[str, Path] = {}
    for name, file in files:
        split = _NAMES.get(name, name)
        require_split_name(split, dir)
        if split in found:
            raise InputError(f"{found[split]} and {file} are both of the split {split}; move one of them away")
        found[split] = file
    first = [split for split in ("train", "val", "test") if split in found]
    return {split: found[split] for split in (*first, *(split for split in found if split not in first))}


def read_images(content: Any, file: str) -> dict[int | str, CocoImage]:
    """Read the images of a JSON file by their numbers, in the order of the file.

    Args:
        content: the content of the file.
        file: its name, for messages.

    Raises:
        InputError: an image has no number of its own, no size or no name.
    """
    listed: dict[int | str, CocoImage] = {}
    for image in get_part(content, "images", (list,), file):
        number = get_part(image, "id", (int, str), f"an image in {file}")
        where = f"image {number!r} in {file}"
        height, width = (get_part(image, key, (int,), where) for key in ("height", "width"))
        if number in listed or min(height, width) < 1:
            raise InputError(
                f"{where} is listed twice, or has the size {width}x{height}; give each image a number of its own and "
                "its size"
            )
        listed[number] = CocoImage(get_path(image, "file_name", where), (height, width))
    return listed


def list_folders(dir: Path, file: Path, names: Iterable[str]) -> list[Path]:  # noqa: A002
    """List the folders that the images of a split may be in.

    Args:
        dir: the folder of the data set.
        file: the JSON file of the split.
        names: the names that a folder of the split may have.
    """
    return [
        file.parent,
        dir,
        dir / "images",
        *(root / name for name in dict.fromkeys(names) for root in (dir, dir / "images")),
    ]


def find_file(path: PurePosixPath, folders: Sequence[Path]) -> Path:
    """Find a file by its path in one of the folders, or by its name alone, as where a path is of another machine.

    Returns:
        Its place, or the first place that it could have.
    """
    ways = [path.name] if _leads_out(path) else [path, path.name]
    places = (folder / way for way in ways for folder in folders)
    return next((place for place in places if os.path.isfile(place)), folders[0] / ways[0])


def find_files(paths: Iterable[PurePosixPath], folders: Sequence[Path], file: Path) -> list[Path]:
    """Find the files of all images that a JSON file lists, as `find_file` does.

    Raises:
        InputError: two images are found in the same place, or one is listed twice.
    """
    listed: dict[Path, PurePosixPath] = {}
    for path in paths:
        place = find_file(path, folders)
        if (other := listed.get(place)) == path:
            raise InputError(f"{file} lists the image {path} twice; keep one of them, with the annotations of both")
        if other:
            raise InputError(
                f"{file} lists {other} and {path}, and both are found as {place}; keep the folders of the images as "
                "they are listed, or give each image a name of its own"
            )
        listed[place] = path
    return list(listed)


def name_example(path: PurePosixPath) -> str:
    """Name an example by the path of its image."""
    return path.stem if _leads_out(path) else path.with_suffix("").as_posix()


def _leads_out(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", path.parts[0]))
