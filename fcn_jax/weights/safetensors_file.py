"""Safetensors files: named arrays, and notes in a header (github.com/huggingface/safetensors)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (adds bfloat16 to NumPy)
import numpy as np
import safetensors

from fcn_jax.errors import InputError


def is_safetensors(start: bytes) -> bool:
    """Return whether a file begins as safetensors do: the length of a header in eight bytes, then JSON."""
    return start[8:9] == b"{"


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays by name, in the types they are stored in.

    The format has no checksums, so changed numbers are not noticed.

    Raises:
        InputError: the file is damaged, or an array has a type that NumPy does not have, such as float8.
    """
    arrays = {}
    with _open(file) as opened:
        for name in opened.keys():  # noqa: SIM118  (not a dictionary)
            try:
                arrays[name] = opened.get_tensor(name)
            except (AttributeError, KeyError, TypeError) as error:
                kind = opened.get_slice(name).get_dtype()
                raise InputError(
                    f"tensor {name!r} of {file} has the type {kind}, which is not supported; save it as float32"
                ) from error
    return arrays


def read_notes(file: Path) -> dict[str, str]:
    """Read the notes in the header.

    Raises:
        InputError: the file is damaged.
    """
    with _open(file) as opened:
        return opened.metadata() or {}


@contextlib.contextmanager
def _open(file: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            yield opened
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or cut short ({error}); download or save it again") from error
