"""Files of named tensors: .pth and .pt of PyTorch, and .safetensors."""

from pathlib import Path

import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.weights.other_formats import describe_other_format
from fcn_jax.weights.safetensors_file import is_safetensors, read_safetensors
from fcn_jax.weights.torch_file import read_torch
from fcn_jax.weights.torch_state import SAVE


def read_tensors(file: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read the tensors of a network. The first bytes decide the format, not the file's name.

    Returns:
        The tensors by name, in the types they are stored in, and their place in the file, as "entry 'state_dict'".

    Raises:
        InputError: the file is missing, damaged, or of a format that is not supported.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a file; give one of weights (.pth, .pt, .safetensors)")
    with file.open("rb") as stream:
        start = stream.read(256)
    place = ""
    if is_safetensors(start):
        tensors = read_safetensors(file)
    elif (other := describe_other_format(file)) is None:
        tensors, place = read_torch(file)
    else:
        raise InputError(
            f"{file} {other}; weights come as .pth or .pt of PyTorch, .safetensors, .caffemodel or .h5 of Keras"
        )
    if not tensors:
        raise InputError(f"{file} holds no tensors by name; {SAVE}")
    return tensors, place
