"""Lists of examples from folders and text files, shared by the data sets."""

from pathlib import Path

from PIL import Image

from fcn_jax.data.sources.source import Files
from fcn_jax.errors import InputError


def pair_files(images: Path, masks: Path) -> list[Files]:
    """Pair the pictures of two folders, and of their sub-folders, by stem, in the order of the stems.

    The stem of a picture in a sub-folder has the sub-folder's name before it: sub/a. A stem found in one folder only
    gets the file name that its partner should have.
    """
    left, right = _group_by_stem(images), _group_by_stem(masks)
    return [
        Files(stem, image, mask)
        for stem in sorted({*left, *right})
        for image in left.get(stem, [images / f"{stem}.jpg"])
        for mask in right.get(stem, [masks / f"{stem}.png"])
    ]


def read_names(file: Path) -> list[str]:
    """Read the names of examples: the first word of each line that is not blank.

    Raises:
        InputError: the file cannot be read as text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); it has the name of one image per line, get it anew"
        ) from error
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _group_by_stem(folder: Path) -> dict[str, list[Path]]:
    kinds = Image.registered_extensions()
    stems: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        # `is_file` would drop a link to a file that is gone. Such an example is reported when it is read.
        if file.suffix.lower() in kinds and not hidden and not file.is_dir():
            stems.setdefault(place.with_suffix("").as_posix(), []).append(file)
    return stems
