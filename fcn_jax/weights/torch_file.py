"""PyTorch's .pth files as NumPy arrays, without PyTorch and without running what is in them.

torch/serialization.py has two formats: a zip file, and before torch 1.6 several pickles followed by the numbers.
The zip file has checksums, which are verified. The older format has none, so changed numbers are not noticed.
"""

import functools
import io
import math
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.weights.bounds import require_bounded
from fcn_jax.weights.torch_pickle import Storage, Unpickler, check_memo, check_number_type
from fcn_jax.weights.torch_state import State, find_state

ZIP_START = b"PK\x03\x04"
# 0x1950a86a20f9469cfc6c, pickled: how files of torch before 1.6 start.
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def is_torch(start: bytes) -> bool:
    """Return whether a file begins as those of `torch.save` do."""
    return start.startswith((ZIP_START, LEGACY_START))


def read_torch(file: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read the tensors of a .pth, .pt or .ckpt file, and ignore what a training program saves beside them.

    Returns:
        The network's tensors by name, in the types they are stored in, and their place in the file (`State.place`).

    Raises:
        InputError: the file is damaged, contains something that is not a tensor in the place of one, or would take
            far more memory than it has bytes.
    """
    try:
        with file.open("rb") as stream:
            legacy = stream.read(len(LEGACY_START)) == LEGACY_START
        return _read_legacy(file) if legacy else _read_zip(file)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{file} is damaged or cut short ({reason}); download or save it again") from error


def _read_zip(file: Path) -> tuple[dict[str, np.ndarray], str]:
    with zipfile.ZipFile(file) as archive:
        require_bounded(sum(entry.file_size for entry in archive.infolist()), "bytes in its entries", file)
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise InputError(f"{file} is a zip file, but not one of torch.save: it has no data.pkl; give a .pth file")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names:
            _require_little_endian(file, archive.read(f"{folder}byteorder") == b"little")
        # The whole pickle is read first, which verifies its checksum, and interpreted afterwards.
        content, _ = _load(io.BytesIO(archive.read(pickles[0])))
        read_storage = functools.cache(lambda key: archive.read(f"{folder}data/{key}"))
        return _read_arrays(find_state(content, file), read_storage, file)


def _read_legacy(file: Path) -> tuple[dict[str, np.ndarray], str]:
    with file.open("rb") as stream:
        _magic, _version, system = (_load(stream)[0] for _ in range(3))
        _require_little_endian(file, system["little_endian"])
        content, storages = _load(stream)
        data = {}
        for key in _load(stream)[0]:
            (count,) = struct.unpack("<q", stream.read(8))
            size = count * check_number_type(storages[key].dtype).itemsize
            require_bounded(size, f"bytes in the storage {key!r}", file)
            data[key] = stream.read(size)
        return _read_arrays(find_state(content, file), data.__getitem__, file)


def _load(stream: io.BufferedIOBase) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle, and leave the stream at its end. Return its content and the storages that it refers to."""
    check_memo(stream)
    unpickler = Unpickler(stream)
    return unpickler.load(), unpickler.storages


def _require_little_endian(file: Path, little: bool) -> None:
    if not little or sys.byteorder != "little":
        raise InputError(f"{file} and this machine must both be little-endian; load and save it with PyTorch")


def _read_arrays(state: State, read_storage: Callable[[str], bytes], file: Path) -> tuple[dict[str, np.ndarray], str]:
    # Tensors are views, which may overlap or repeat a number.
    require_bounded(sum(math.prod(tensor.shape) for tensor in state.tensors.values()), "numbers", file)
    return {name: tensor.read(read_storage) for name, tensor in state.tensors.items()}, state.place
