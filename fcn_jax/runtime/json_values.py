"""Convert dataclasses and NumPy values to JSON values, and dataclasses back."""

import dataclasses
import math
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


def from_json(kind: type, values: dict[str, Any]) -> Any:
    """Make an instance of the dataclass `kind` from what `to_json` made of one; fields that are missing get defaults.

    Raises:
        InputError: `values` has a field that `kind` does not have, or a value that `kind` refuses.
    """
    hints = typing.get_type_hints(kind)
    unknown = values.keys() - hints.keys()
    if unknown:
        raise InputError(f"configuration has {sorted(unknown)}, which {kind.__name__} of this version does not know")

    def restore(hint: Any, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return tuple(restore(Any, item) for item in value)
        for choice in (hint, *typing.get_args(hint)):  # `X | None` means X
            if choice is Path:
                return Path(value)
            if dataclasses.is_dataclass(choice):
                return from_json(choice, value)  # pyright: ignore[reportArgumentType]
        return value

    return kind(**{key: restore(hints[key], value) for key, value in values.items()})
