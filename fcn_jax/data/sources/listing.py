"""Lists of examples from folders and text files, shared by the data sets."""

import re
import unicodedata
from pathlib import Path

from PIL import Image

from fcn_jax.data.sources.source import Files
from fcn_jax.errors import InputError


def pair_files(images: Path, masks: Path, suffix: str = "") -> list[Files]:
    """Pair the pictures of two folders, and of their sub-folders, by stem, in the order of the stems.

    The stem of a picture in a sub-folder has the sub-folder's name before it: sub/a. A stem found in one folder only
    gets the file name that its partner should have.

    Args:
        images: the folder of the images.
        masks: the folder of the masks.
        suffix: what the stem of a mask has after that of its image. Masks without it are left out.

    Raises:
        InputError: the names of two pictures in a folder look alike (`_compose_letters`).
    """
    left = _group_by_stem(images)
    right = {stem.removesuffix(suffix): files for stem, files in _group_by_stem(masks).items() if stem.endswith(suffix)}
    return [
        Files(stem, image, mask)
        for stem in sorted({*left, *right})
        for image in left.get(stem, [images / f"{stem}.jpg"])
        for mask in right.get(stem, [masks / f"{stem}{suffix}.png"])
    ]


def read_list(file: Path) -> list[list[str]]:
    """Read a list of examples: the words of each line that is not blank.

    Raises:
        InputError: the file cannot be read as text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
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


def _group_by_stem(folder: Path) -> dict[str, list[Path]]:
    kinds = Image.registered_extensions()
    stems: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        # `is_file` would drop a link to a file that is gone. Such an example is reported when it is read.
        if file.suffix.lower() in kinds and not hidden and not file.is_dir():
            stems.setdefault(place.with_suffix("").as_posix(), []).append(file)
    return _compose_letters(stems, folder)


def _compose_letters(stems: dict[str, list[Path]], folder: Path) -> dict[str, list[Path]]:
    """Spell stems with one code point a letter (Unicode's form NFC), as most systems do.

    macOS writes an accent as a code point of its own (form NFD). Both forms look the same.

    Raises:
        InputError: two stems differ in their form only.
    """
    composed: dict[str, list[Path]] = {}
    for stem, files in stems.items():
        others = composed.setdefault(unicodedata.normalize("NFC", stem), files)
        if others is not files:
            names = " and ".join(ascii(group[0].relative_to(folder).as_posix()) for group in (others, files))
            raise InputError(
                f"{names} in {folder} differ in their Unicode form only, so they look alike and have one name here; "
                "rename or remove one of them"
            )
    return composed
