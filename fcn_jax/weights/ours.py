"""Our own files of weights: safetensors with the paths of our variables, and in the notes what goes with them.

The format (github.com/huggingface/safetensors, README): the length of a header in eight bytes, little endian; the
header in JSON, name -> dtype, shape and place in the data; the data.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from fcn_jax import config as configs
from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights import Weights

FORMAT = "fcn_jax"


def write(file: Path, weights: Weights) -> None:
    """Writes weights with the input they want and their classes, so that they can be passed on.

    Raises:
        InputError: the file cannot be written.
    """
    notes = {
        "format": FORMAT,
        "origin": weights.origin,
        "input": json.dumps(None if weights.input is None else dataclasses.asdict(weights.input)),
        "class_names": json.dumps(weights.class_names),
    }
    header: dict[str, Any] = {"__metadata__": notes}
    place = 0
    arrays = {path: np.asarray(array, "<f4", order="C") for path, array in sorted(weights.arrays.items())}
    for path, array in arrays.items():
        header[path] = {"dtype": "F32", "shape": array.shape, "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    temporary = file.with_name(file.name + ".tmp")  # so that nobody ever reads half a file
    try:
        with temporary.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for array in arrays.values():
                stream.write(array.tobytes())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{file} cannot be written ({error.strerror}); make room, or give another --out") from error


def is_ours(beginning: bytes) -> bool:
    """Whether a file of safetensors is one of ours, by its first bytes: the notes come first in the header."""
    return b'"__metadata__"' in beginning[:64] and f'"format":"{FORMAT}"'.encode() in beginning.replace(b" ", b"")


def read(file: Path) -> Weights:
    """Reads what `write` wrote.

    Raises:
        InputError: the file is cut short or damaged.
    """
    try:
        data = np.memmap(file, np.uint8, "r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:start].tobytes())
        notes = header.pop("__metadata__")
        arrays = {path: _array(data[start:], path, **entry) for path, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if start + end != len(data):
            raise ValueError(f"its header tells of {start + end} bytes, and it has {len(data)}")
        settings, class_names = json.loads(notes["input"]), json.loads(notes["class_names"])
        return Weights(
            arrays,
            (),
            None if settings is None else configs.from_json(InputConfig, settings),
            f"{file} (fcn_jax, from {notes['origin']})",
            None if class_names is None else tuple(class_names),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is cut short or damaged ({error}); copy or convert it again") from error


def _array(data: np.ndarray, path: str, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    first, end = data_offsets
    if dtype != "F32" or end - first != 4 * math.prod(shape) or first < 0 or end > len(data):
        raise ValueError(f"{path} of {dtype} and shape {shape} does not fit bytes {first} to {end} of {len(data)}")
    return np.frombuffer(data[first:end].tobytes(), "<f4").reshape(shape)
