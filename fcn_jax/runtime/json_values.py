"""Convert dataclasses and NumPy values to JSON values, and dataclasses back."""

import dataclasses
import json
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fcn_jax.errors import InputError


def to_json(value: Any) -> Any:
    """Convert nested dataclasses, mappings, sequences, paths and NumPy values to JSON values.

    NaN and infinity, which JSON does not have, become null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one, with keys such as "model.input.order"."""
    items: dict[str, Any] = {}
    for key, value in values.items():
        items |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return items


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or its lists and objects are nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists and objects are nested too deeply") from error


def from_json(kind: Any, value: Any, name: str = "") -> Any:
    """Make a value of a type from what `to_json` made of one. Fields of dataclasses that are missing get defaults.

    Args:
        kind: a dataclass, or what its fields are: a number, str, Path, Literal, tuple, or one of these or None.
        value: a JSON value.
        name: the name of the value, for messages; "" for the outermost one.

    Raises:
        InputError: a value is of another type, a dataclass does not have a field of this name, or refuses a value.
    """
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = (choice for choice in choices if choice is not types.NoneType)
        return from_json(kind, value, name)
    if isinstance(value, dict) and dataclasses.is_dataclass(kind):
        return _make_dataclass(typing.cast(type, kind), value, name)
    if origin is tuple and isinstance(value, list):
        kinds = choices[:1] * len(value) if choices[1:] == (...,) else choices
        if len(kinds) == len(value):
            return tuple(from_json(*pair, name) for pair in zip(kinds, value, strict=True))
    if kind is Path and isinstance(value, str) and _is_plain(value, str):
        return Path(value)
    if value in choices if origin is typing.Literal else _is_plain(value, kind):
        return float(typing.cast(float, value)) if kind is float else value
    raise InputError(f"{name or 'the value'} is {reprlib.repr(value)}; it must be of the type {_describe_type(kind)}")


def _make_dataclass(kind: type, values: dict[str, Any], name: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = values.keys() - hints.keys()
    if unknown:
        raise InputError(f"configuration has {sorted(unknown)}, which {kind.__name__} of this version does not know")
    prefix = f"{name}." if name else ""
    return kind(**{key: from_json(hints[key], value, prefix + key) for key, value in values.items()})


def _describe_type(kind: Any) -> str:
    return str(kind).replace("typing.", "") if typing.get_args(kind) else kind.__name__


def _is_plain(value: Any, kind: Any) -> bool:
    """Return whether a value is a bool, an int of 64 bits, a float, or a str without the character 0."""
    if kind is float and not isinstance(value, float):
        return _is_plain(value, int)
    if isinstance(value, str) and "\0" in value:
        return False
    if type(value) is int and abs(value) >= 2**63:
        return False
    return kind in (bool, int, float, str) and type(value) is kind  # `type`, because True is an int
