"""The user's own images and masks, in folders."""

import re
import unicodedata
from pathlib import Path

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.sources.listing import pair_files
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with images/SPLIT/* and labels/SPLIT/* with the same stems, in sub-folders or not (labels: PNG with the "
    "class number of each pixel, 255 for void), and classes.txt with one class name per line, the first for label 0"
)


def find(request: Request) -> Found:
    """Find every split: train, val and test first, the others by name. Examples are in order of name.

    Raises:
        InputError: the folder is not given or has no splits, or a split, class name or void label is invalid.
    """
    dir = request.require_dir("folder", LAYOUT)  # noqa: A001
    class_names = read_class_names(request.classes or dir / "classes.txt")
    for label in request.void:
        if not len(class_names) <= label <= IGNORE:
            raise InputError(
                f"void label {label} is not within {len(class_names)}..{IGNORE}; labels below {len(class_names)} are "
                "classes, so remove it from --data.void or remove its class name"
            )
    found = {f.name for kind in ("images", "labels") for f in (dir / kind).glob("*") if f.is_dir()}
    found = {split for split in found if not split.startswith(".")}
    if not found:
        raise InputError(f"{dir} has no splits; it should be {LAYOUT}")
    for split in found:
        if not re.fullmatch(r"[\w-]+", split) or split.lower() == "all":
            raise InputError(
                f"the folder {split!r} in {dir} cannot be the name of a split; a name has letters, digits, _ and -, "
                "and is not 'all', which means every split; rename the folder"
            )
    first = [split for split in ("train", "val", "test") if split in found]
    order = (*first, *sorted(found.difference(first)))
    splits = {split: pair_files(dir / "images" / split, dir / "labels" / split) for split in order}
    return Found(class_names, splits, void=request.void)


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read one class name per line.

    Raises:
        InputError: the file cannot be read as text, has a blank line or a name twice, or does not have 1 to 255 names.
    """
    rule = "it has one class name per line, the first for label 0"
    try:
        # In one Unicode form: names that look alike are the same.
        text = unicodedata.normalize("NFC", file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class names cannot be read from {file} ({error}); {rule}") from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not 0 < len(lines) <= IGNORE:
        raise InputError(f"{file} has {len(lines)} class names; {rule}, and 1 to {IGNORE} of them")
    for number, line in enumerate(lines, 1):
        if not line or line in lines[: number - 1]:
            raise InputError(f"line {number} of {file} is {line!r}, blank or used before; {rule}")
    return tuple(lines)


SOURCE = DataSource(
    name="folder",
    splits="any",
    classes="any",
    description="images of your own: --data.dir with images/SPLIT/*, labels/SPLIT/*.png and classes.txt",
    # The values of CamVid, whose size is common for data sets of users.
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
)
