"""Lists of examples from folders and text files, shared by the data sets."""

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from fcn_jax.data.image_kinds import describe_others, split_by_kind
from fcn_jax.data.sources.source import Files
from fcn_jax.errors import InputError


def pair_files(images: Path, masks: Path, suffix: str = "", more: Collection[str] = ()) -> list[Files]:
    """Pair the pictures of two folders, and of their sub-folders, by stem, in the order of the stems.

    The stem of a picture in a sub-folder has the sub-folder's name before it: sub/a. A stem found in one folder only
    gets the file name that its partner should have. A file that is no picture is used only if it is such a partner, so
    that the error names it; a warning counts the others.

    Args:
        images: the folder of the images.
        masks: the folder of the masks.
        suffix: what the stem of a mask has after that of its image. Masks without it are left out.
        more: suffixes of files that are images besides pictures, as .npy.

    Raises:
        InputError: the names of two pictures in a folder look alike, or one is not UTF-8 (`compose_letters`).
    """
    left, left_others = _group_by_stem(images, more)
    masks_found, right_others = _group_by_stem(masks)
    right = {stem.removesuffix(suffix): files for stem, files in masks_found.items() if stem.endswith(suffix)}
    stems = sorted({*left, *right})
    kinds = Counter(file.suffix for files in left.values() for file in files)
    kind = max(kinds, key=lambda kind: kinds[kind], default=".jpg")
    for stem in stems:
        if stem not in left:
            left[stem] = left_others.pop(stem, [images / f"{stem}{kind}"])
        if stem not in right:
            right[stem] = right_others.pop(f"{stem}{suffix}", [masks / f"{stem}{suffix}.png"])
    for folder, others in ((images, left_others), (masks, right_others)):
        if files := [file for group in others.values() for file in group]:
            print(f"warning: {folder}: left out are {describe_others(files)}", file=sys.stderr)
    return [Files(stem, image, mask) for stem in stems for image in left[stem] for mask in right[stem]]


def list_pictures(folder: Path, more: Collection[str] = ()) -> list[Path]:
    """List the pictures of a folder and of its sub-folders, in the order of their stems; none if it does not exist.

    Args:
        folder: the folder.
        more: suffixes of files to list besides pictures, as .npy.

    Raises:
        InputError: two names look alike, or one is not UTF-8 (`compose_letters`).
    """
    pictures, _ = _group_by_stem(folder, more)
    return [file for stem in sorted(pictures) for file in pictures[stem]]


def read_list(file: Path) -> list[list[str]]:
    """Read a list of examples: the words of each line that is not blank.

    Raises:
        InputError: the file cannot be read as text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise OSError("it has bytes of value 0, as UTF-16 has")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); it has one image per line, get it anew") from error
    return [line.split() for line in text.splitlines() if line.strip()]


def require_split_name(name: str, place: Path) -> None:
    """Raise InputError if a name cannot be that of a split.

    Args:
        name: the name.
        place: where it was found, for the message.
    """
    if not re.fullmatch(r"[\w-]+", name) or name.lower() == "all":
        raise InputError(
            f"{name!r} in {place} cannot be the name of a split; a name has letters, digits, _ and -, and is not "
            "'all', which means every split; rename it"
        )


def list_files(folder: Path) -> list[Path]:
    """List the files of a folder and of its sub-folders, those behind links too, without hidden ones, in order.

    A link to a file that is gone is a file: the example is reported when it is read.

    Raises:
        InputError: a folder cannot be read.
    """

    def walk(place: Path, above: tuple[str, ...]) -> Iterator[Path]:
        here = os.path.realpath(place)
        if here in above:  # a link to a folder that it is in
            return
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from walk(place / entry.name, (*above, here))
                else:
                    yield place / entry.name

    try:
        return sorted(walk(folder, ())) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error


def _group_by_stem(folder: Path, more: Collection[str] = ()) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Group the pictures of a folder by stem, with files of the suffixes `more`, and its other files."""
    pictures, others = split_by_kind(list_files(folder))
    used = sorted([*pictures, *(file for file in others if file.suffix.lower() in more)])
    left = [file for file in others if file.suffix.lower() not in more]
    return compose_letters(used, folder), compose_letters(left, folder)


def compose_letters(files: Collection[Path], folder: Path) -> dict[str, list[Path]]:
    """Group files by their stems, spelt with one code point a letter (Unicode's form NFC), as most systems do.

    macOS writes an accent as a code point of its own (form NFD). Both forms look the same.

    Args:
        files: the files.
        folder: a folder that they are in. A stem has the names of the folders between before it: sub/a.

    Raises:
        InputError: two stems differ in their form only, or one is not Unicode.
    """
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    composed: dict[str, list[Path]] = {}
    for stem, files in stems.items():
        if any("\ud800" <= letter <= "\udfff" for letter in stem):  # how Python spells bytes that are not UTF-8
            raise InputError(f"{files[0].name!a} in {folder} is a name that is not UTF-8; rename the file")
        others = composed.setdefault(unicodedata.normalize("NFC", stem), files)
        if others is not files:
            names = " and ".join(ascii(group[0].relative_to(folder).as_posix()) for group in (others, files))
            raise InputError(
                f"{names} in {folder} differ in their Unicode form only, so they look alike and have one name here; "
                "rename or remove one of them"
            )
    return composed
