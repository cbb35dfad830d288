"""Our own files of weights: safetensors with the paths of our variables, and a note on their input and classes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.runtime.files import write_atomically
from fcn_jax.runtime.json_values import from_json, parse_json
from fcn_jax.weights.safetensors_file import read_notes, read_safetensors
from fcn_jax.weights.weights import Weights

# The only note. Safetensors would write several notes in arbitrary order, and the same weights should give the same
# file.
NOTE = "fcn_jax"
# The entries of the note. In files of older versions each entry is a note of its own, beside "format": "fcn_jax".
ENTRIES = ("origin", "input", "class_names")


def write(file: Path, weights: Weights) -> None:
    """Write weights with their input and their classes, so that they can be passed on.

    The same weights always give the same bytes.

    Raises:
        InputError: the file cannot be written.
    """
    settings = None if weights.input is None else dataclasses.asdict(weights.input)
    note = json.dumps(dict(zip(ENTRIES, (weights.origin, settings, weights.class_names), strict=True)))
    arrays = {path: np.asarray(array, "<f4", order="C") for path, array in weights.arrays.items()}
    # `save_file` would make a file that only its owner can read.
    content = safetensors.numpy.save(arrays, {NOTE: note})
    try:
        write_atomically(file, content)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); make room, or give another --out") from error


def is_ours(file: Path) -> bool:
    """Return whether `write` wrote a safetensors file, judging by its notes."""
    notes = read_notes(file)
    return NOTE in notes or notes.get("format") == NOTE


def read(file: Path) -> Weights:
    """Read a file that `write` wrote.

    Raises:
        InputError: the file is damaged.
    """
    arrays, notes = read_safetensors(file), read_notes(file)
    try:
        entries = parse_json(notes[NOTE]) if NOTE in notes else {name: parse_json(notes[name]) for name in ENTRIES}
        origin, settings, class_names = (entries[name] for name in ENTRIES)
        return Weights(
            arrays,
            (),
            from_json(InputConfig | None, settings, "input"),
            f"{file.name} (fcn_jax, from {origin})",
            from_json(tuple[str, ...] | None, class_names, "class_names"),
        )
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: its notes cannot be read ({error!r}); convert it again") from error
