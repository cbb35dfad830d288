"""Images and masks of your own, in folders."""

import re
from pathlib import Path

from PIL import Image

from fcn_jax.data.builder import SegmentationBuilder
from fcn_jax.data.entries import Files
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError

LAYOUT = (
    "images/SPLIT/* and labels/SPLIT/* with the same stems (labels: PNG with the class number of each pixel, 255 "
    "for void), and classes.txt with a class name a line, the first for label 0"
)


class Folder(SegmentationBuilder):
    """Any splits that are found, in the order train, val, test, then by name; examples by name."""

    name = "folder"

    def __init__(self, dir: Path, cache: Path, classes: Path | None = None, void: tuple[int, ...] = ()):  # noqa: A002
        """Finds splits and class names.

        Args:
            dir: the folder with images, labels and classes.txt.
            cache: the folder of everything prepared.
            classes: a file with the class names, instead of classes.txt.
            void: labels that count as void besides 255.

        Raises:
            InputError: if the folder or the class names are not as they should be.
        """
        self._dir = dir
        self.class_names = read_class_names(classes or dir / "classes.txt")
        self.void = tuple(void)
        for label in self.void:
            if not len(self.class_names) <= label <= IGNORE:
                raise InputError(
                    f"void label {label} is not within {len(self.class_names)}..{IGNORE}: labels below "
                    "are classes; take it out of `void`, or its name out of the class names"
                )
        found = {f.name for kind in ("images", "labels") for f in (dir / kind).glob("*") if f.is_dir()}
        found = {name for name in found if not name.startswith(".")}
        if not found:
            raise InputError(f"{dir} has no splits: it should hold {LAYOUT}")
        for split in found:
            if not re.fullmatch(r"[\w-]+", split) or split.lower() == "all":
                raise InputError(
                    f"{split!r} in {dir} cannot be the name of a split: letters, digits, _ and -, and not "
                    "'all', which means every split; rename the folder"
                )
        first = [split for split in ("train", "val", "test") if split in found]
        self.splits = (*first, *sorted(found.difference(first)))
        super().__init__(cache)

    def examples(self, split: str) -> list[Files]:
        """The examples by name."""
        return pair(self._dir / "images" / split, self._dir / "labels" / split)


def pair(images: Path, masks: Path) -> list[Files]:
    """Pairs the pictures of two folders by stem; a partner that is missing gets the name it should have."""
    left, right = _by_stem(images), _by_stem(masks)
    return [
        Files(stem, image, mask)
        for stem in sorted({*left, *right})
        for image in left.get(stem, [images / f"{stem}.jpg"])
        for mask in right.get(stem, [masks / f"{stem}.png"])
    ]


def read_class_names(file: Path) -> tuple[str, ...]:
    """Reads a class name a line.

    Raises:
        InputError: if there is no such text file, or it has a blank line, a name twice, or over 255 names.
    """
    rule = "it holds a class name a line, the first for label 0"
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class names cannot be read from {file} ({error}): {rule}") from error
    if not 0 < len(lines) <= IGNORE:
        raise InputError(f"{file} has {len(lines)} class names: {rule}, and there are 1 to {IGNORE}")
    for number, line in enumerate(lines, 1):
        if not line or line in lines[: number - 1]:
            raise InputError(f"line {number} of {file} is {line!r}, blank or a name again: {rule}")
    return tuple(lines)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    kinds = Image.registered_extensions()
    stems: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*")):
        # Not `is_file`: a link to a file that is gone is an example that cannot be read, and is to be reported.
        if file.suffix.lower() in kinds and not file.name.startswith(".") and not file.is_dir():
            stems.setdefault(file.stem, []).append(file)
    return stems
