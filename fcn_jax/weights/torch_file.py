"""PyTorch's .pth files and .safetensors as NumPy arrays, without PyTorch and without running what is in them.

A .pth file is a pickle, and a pickle is a program: it names functions to be called. Here it may name only those that
describe tensors, which give descriptions (`_Tensor`) and nothing else; the numbers are read afterwards. Formats:
torch/serialization.py for both kinds of .pth (a zip file; before torch 1.6 a row of pickles, then the numbers),
github.com/huggingface/safetensors for the other.

The zip format has checksums, which are verified. The other two have none: there changed numbers are not noticed.
"""

import functools
import io
import json
import math
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fcn_jax.errors import InputError

# Entries under which training programs keep the network, beside the optimizer and the like.
WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict")
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
SAFE_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
# 0x1950a86a20f9469cfc6c, pickled: how files of torch before 1.6 start.
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, in the types they are stored in.

    Args:
        file: .pth, .pt or .safetensors; what counts is how it starts, not its name.

    Raises:
        InputError: there is no such file, it is of another kind, damaged, or wants to do more than hold tensors.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a file; give one of weights (.pth, .pt, .safetensors)")
    with file.open("rb") as stream:
        start = stream.read(256)
    if start.startswith(b"PK\x03\x04"):
        read = _read_zip
    elif start.startswith(LEGACY_START):
        read = _read_legacy
    elif start[8:9] == b"{":
        read = _read_safetensors
    else:
        raise InputError(f"{file} {_what_it_is(start)}; weights come as .pth or .pt of PyTorch or as .safetensors")
    try:
        tensors = read(file)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{file} is damaged or cut short ({reason}); download or save it again") from error
    if not tensors:
        raise InputError(
            f"{file} holds no tensors by name, at the top or under {', '.join(WRAPPERS)}; "
            "save a network's: torch.save(model.state_dict(), file)"
        )
    return tensors


def _what_it_is(start: bytes) -> str:
    if not start:
        return "is empty, as a failed download leaves it"
    if min(start) >= ord("\t"):
        line = start.decode(errors="replace").split("\n")[0].strip()
        return f"is text ({line[:60]!r}), as a failed download leaves it"
    return f"is of a format that is not known (it starts with {start[:8]!r})"


class _Storage(NamedTuple):
    """A row of numbers somewhere in the file."""

    key: str
    dtype: str


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        """Called for parameters of torch before 0.4, with what training needs to know of them."""

    def array(self, read: Callable[[str], bytes]) -> np.ndarray:
        """The numbers, of the storage's bytes; NumPy checks that the view does not leave them.

        A pickle can build a tensor on anything, and a storage of any type, so both are checked here.
        """
        if not isinstance(self.storage, _Storage):
            raise ValueError(f"a tensor's numbers are in a {type(self.storage).__name__}, which is no storage")
        dtype = _number_type(self.storage.dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, read(self.storage.key), self.offset * dtype.itemsize, strides)


def _number_type(name: Any) -> np.dtype:
    """A type of `STORAGES`: of others NumPy makes more than numbers, of "O" objects of whatever the bytes point to."""
    if not isinstance(name, str) or name not in STORAGES.values():
        raise ValueError(f"a storage has the type {name!r}, which is none of numbers")
    return jnp.dtype(name)


class _Unpickler(pickle.Unpickler):
    """Reads descriptions of tensors in dictionaries, and refuses all that could do something.

    What a pickle can name it can also change (its attributes), so nothing it gets here outlives it.
    """

    def __init__(self, stream: io.BufferedIOBase, file: Path) -> None:
        super().__init__(stream, encoding="utf-8")  # for strings of Python 2
        self.file = file
        self.storages: dict[str, _Storage] = {}
        self.known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): lambda storage, *view: _Tensor(storage, *view),
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, *view: _Tensor(storage, *view[:3]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch.nn.parameter", "Parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise InputError(
                f"{self.file} refers to {module}.{name}, which is no tensor and could run code when read, so it is "
                "refused; save the weights alone: torch.save(model.state_dict(), file)"
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return self.storages.setdefault(key, _Storage(key, dtype))


def _read_zip(file: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise InputError(f"{file} is a zip file, but not one of torch.save: it has no data.pkl; give a .pth file")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names:
            _require_little_endian(file, archive.read(f"{folder}byteorder") == b"little")
        # Read as a whole, and so checked, before a byte of it is obeyed.
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), file).load()
        read = functools.cache(lambda key: archive.read(f"{folder}data/{key}"))
        return _arrays(content, read)


def _read_legacy(file: Path) -> dict[str, np.ndarray]:
    with file.open("rb") as stream:
        _magic, _version, system = (_Unpickler(stream, file).load() for _ in range(3))
        _require_little_endian(file, system["little_endian"])
        unpickler = _Unpickler(stream, file)
        content = unpickler.load()
        data = {}
        for key in _Unpickler(stream, file).load():
            (count,) = struct.unpack("<q", stream.read(8))
            data[key] = stream.read(count * _number_type(unpickler.storages[key].dtype).itemsize)
        return _arrays(content, data.__getitem__)


def _require_little_endian(file: Path, little: bool) -> None:
    if not little or sys.byteorder != "little":
        raise InputError(f"{file} and this machine must both be little-endian; load and save it with PyTorch")


def _arrays(content: Any, read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The tensors of what was pickled, out of their wrappers."""
    for _ in WRAPPERS:  # each at most once: a dictionary may hold itself
        wrapped = [content[name] for name in WRAPPERS if isinstance(content, dict) and name in content]
        content = next((inner for inner in wrapped if isinstance(inner, dict)), content)
    items = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in items if isinstance(name, str) and isinstance(value, _Tensor)}
    return {name: value.array(read) for name, value in tensors.items()}


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    raw = file.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    body = memoryview(raw)[8 + length :]
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    arrays, total = {}, 0
    for name, entry in header.items():
        dtype, shape, (begin, end) = jnp.dtype(SAFE_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} of shape {shape} has {end - begin} bytes")
        arrays[name] = np.ndarray(shape, dtype, body, begin)
        total += end - begin
    if total != len(body):
        raise ValueError(f"its tensors need {total} bytes, it has {len(body)}")
    return arrays
