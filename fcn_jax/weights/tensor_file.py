"""Files of named tensors: .pth and .pt of PyTorch, and .safetensors."""

from pathlib import Path

import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.weights.safetensors_file import is_safetensors, read_safetensors
from fcn_jax.weights.torch_file import WRAPPERS, is_torch, read_torch


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """Read tensors by name, in the types they are stored in. The first bytes decide the format, not the file's name.

    Raises:
        InputError: the file is missing, damaged, or of a format that is not supported.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a file; give one of weights (.pth, .pt, .safetensors)")
    with file.open("rb") as stream:
        start = stream.read(256)
    if is_torch(start):
        tensors = read_torch(file)
    elif is_safetensors(start):
        tensors = read_safetensors(file)
    else:
        raise InputError(f"{file} {_describe(start)}; weights come as .pth or .pt of PyTorch or as .safetensors")
    if not tensors:
        raise InputError(
            f"{file} holds no tensors by name, at the top or under {', '.join(WRAPPERS)}; "
            "save a network's: torch.save(model.state_dict(), file)"
        )
    return tensors


def _describe(start: bytes) -> str:
    """Describe a file of another format by its first bytes."""
    if not start:
        return "is empty, as a failed download leaves it"
    if min(start) >= ord("\t"):
        line = start.decode(errors="replace").split("\n")[0].strip()
        return f"is text ({line[:60]!r}), as a failed download leaves it"
    return f"is of a format that is not supported (it starts with {start[:8]!r})"
