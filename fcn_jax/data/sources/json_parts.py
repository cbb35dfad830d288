"""Read and check the parts of JSON files of outlines and segments, which tools and people write."""

import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from fcn_jax.errors import InputError
from fcn_jax.runtime.json_values import parse_json

_FARTHEST = 1e9  # coordinate; points beyond the image are fine


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        return parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); export it anew") from error


def get_part(item: Any, key: str, kinds: tuple[type, ...], where: str) -> Any:
    """Return a value of an object.

    Args:
        item: what should be an object that has the key.
        key: the key.
        kinds: the types that the value may have.
        where: what the object is, for the message.

    Raises:
        InputError: it is no object, or has no such value.
    """
    value = item.get(key) if isinstance(item, dict) else None
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{where} has no {key!r} of the type {wanted}; export the file anew, or move it away")
    return value


def read_points(values: Any, where: str) -> Float64[np.ndarray, "_ 2"]:
    """Return the points of a list x, y, x, y and so on, in pixels.

    Raises:
        InputError: it is no such list, or has a number that is not finite or beyond 1e9.
    """
    if not isinstance(values, list) or len(values) % 2 or not all(map(_is_coordinate, values)):
        raise InputError(f"{where} has points that are no pairs of finite numbers x, y; draw or export it anew")
    return np.array(values, np.float64).reshape(-1, 2)


def _is_coordinate(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _FARTHEST


def get_name(item: Any, key: str, where: str) -> str:
    """Return a name in Unicode's form NFC, in which names that look alike are the same, without blanks around it.

    Raises:
        InputError: there is none, or it is blank or not Unicode.
    """
    name = unicodedata.normalize("NFC", get_part(item, key, (str,), where)).strip()
    if not name or not _is_unicode(name):
        raise InputError(f"{where} has the {key!r} {name[:200]!a}, which is blank or not Unicode; give it a name")
    return name


def get_path(item: Any, key: str, where: str) -> PurePosixPath:
    r"""Return the path of a file, which may be written with `\` between its folders.

    Raises:
        InputError: there is none, or no file can have it.
    """
    name = get_part(item, key, (str,), where).replace("\\", "/")
    path = PurePosixPath(name)
    if not path.name or "\0" in name or not _is_unicode(name):
        raise InputError(f"{where} has the {key!r} {name[:200]!r}, which no file can have; correct it")
    return path


def _is_unicode(text: str) -> bool:
    r"""Return whether a text can be written to files, and has no half of a pair, as JSON may have as \ud800."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
