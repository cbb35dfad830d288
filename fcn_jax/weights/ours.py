"""Our own files of weights: safetensors with the paths of our variables, and in the notes what goes with them.

The format (github.com/huggingface/safetensors, README): the length of a header in eight bytes, little endian; the
header in JSON, name -> dtype, shape and place in the data; the data.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from fcn_jax import config as configs
from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.torch_file import read_tensors
from fcn_jax.weights.weights import Weights

FORMAT = "fcn_jax"


def write(file: Path, weights: Weights) -> None:
    """Writes weights with the input they want and their classes, so that they can be passed on.

    Raises:
        InputError: the file cannot be written.
    """
    notes = {
        "format": FORMAT,
        "origin": json.dumps(weights.origin),
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
    """Whether a file is one of ours, by its first bytes: the notes are the first in the header, and begin like that."""
    return beginning[8:].startswith(json.dumps({"__metadata__": {"format": FORMAT}})[:-2].encode())


def read(file: Path) -> Weights:
    """Reads what `write` wrote.

    Raises:
        InputError: the file is cut short or damaged.
    """
    arrays = read_tensors(file)
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    try:
        notes = {name: json.loads(header["__metadata__"][name]) for name in ("origin", "input", "class_names")}
        settings, class_names = notes["input"], notes["class_names"]
        return Weights(
            arrays,
            (),
            None if settings is None else configs.from_json(InputConfig, settings),
            f"{file.name} (fcn_jax, from {notes['origin']})",
            None if class_names is None else tuple(class_names),
        )
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: its notes cannot be read ({error!r}); convert it again") from error
