"""Describe files of weights in formats that cannot be read, and how to get one that can."""

import re
import zipfile
from pathlib import Path

from fcn_jax.runtime.files import is_lfs_pointer
from fcn_jax.weights.torch_file import is_torch

SAVE = "save its arrays by name with safetensors.numpy.save_file"


def describe_other_format(file: Path) -> str | None:
    """Describe a file, and say how to get weights that can be read.

    Args:
        file: a file that exists.

    Returns:
        A phrase that follows the file's name; None if the file may be PyTorch's.
    """
    with file.open("rb") as stream:
        start = stream.read(256)
    if not start:
        return "is empty, as a failed download leaves it"
    if is_torch(start):
        return _describe_zip(file)
    if start.startswith(b"MATLAB"):
        return f"is a MATLAB file; read it with scipy.io.loadmat (or h5py, from version 7.3 on) and {SAVE}"
    if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", start):  # ir_version, then another field
        return f"is an ONNX file; give the weights that it was made from, or read its initializers with onnx and {SAVE}"
    if start[4:8] == b"TFL3":
        return "is a TensorFlow Lite file; give the weights that it was made from"
    if start.startswith(b"\x93NUMPY"):
        return f"is one array of NumPy without a name; {SAVE}"
    if re.match(rb"\x80[\x00-\x05]", start):
        return "is a pickle, which can run any code when it is read; save the weights with torch.save or safetensors"
    if is_lfs_pointer(start):
        return "is a pointer of Git LFS, not the weights themselves; fetch them with git lfs pull"
    if min(start) >= ord("\t"):
        line = start.decode(errors="replace").split("\n")[0].strip()
        return f"is text ({line[:60]!r}), as a failed download leaves it"
    return f"is of a format that is not supported (it starts with {start[:8]!r})"


def _describe_zip(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises errors of many types for damaged files; reading it on says what is wrong
        return None
    if "model.weights.h5" in names:
        return "is a .keras archive; unpack it, and give its model.weights.h5"
    if names and all(name.endswith(".npy") for name in names):
        return f"is an .npz archive of NumPy; {SAVE}"
    return None
