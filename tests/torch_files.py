"""Files as PyTorch has written them since its first versions, and crafted ones that it would never write."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


def save_zip(content: object, file: Path) -> None:
    import torch

    torch.save(content, file)


def save_legacy(content: object, file: Path) -> None:
    """Saves as torch before 1.6."""
    import torch

    torch.save(content, file, _use_new_zipfile_serialization=False)


SAVE = {"zip": save_zip, "legacy": save_legacy}


def tensors_of_all_types() -> dict:
    import torch

    numbers = torch.randn((3, 2, 5), generator=torch.Generator().manual_seed(0))
    floats = {str(t): numbers.to(t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    return {**floats, "int64": (numbers * 1e12).long(), "uint8": numbers.byte(), "bool": numbers > 0}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable, *arguments: object):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Stored:
    """Pickles as a reference to a storage: float32 unless another type is given."""

    def __init__(self, key: str = "0", dtype: object = None):
        self.key, self.dtype = key, dtype


class OldTensor:
    """Pickles as a tensor of torch 0.1 to 0.3: a parameter by its class, with a state to set."""

    def __init__(self, *view: object, key: str = "0"):
        self.view, self.key = view, key

    def __reduce__(self):
        import torch

        tensor = Call(torch._utils._rebuild_tensor, Stored(self.key), *self.view)
        return torch.nn.Parameter, (tensor,), (True, False, OrderedDict())


class TensorOn:
    """Pickles as a tensor with one number, on a storage of any kind."""

    def __init__(self, storage: object):
        self.storage = storage

    def __reduce__(self):
        import torch

        return torch._utils._rebuild_tensor_v2, (self.storage, 0, (1, 1, 1, 1), (1, 1, 1, 1), False, OrderedDict())


class FakeStorage:
    """Pickles as an OrderedDict with the attributes of a storage."""

    def __reduce__(self):
        return OrderedDict, (), {"key": "0", "dtype": "O"}


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        import torch

        return ("storage", obj.dtype or torch.FloatStorage, obj.key, "cpu", 4) if isinstance(obj, Stored) else None


def _pickle(content: object) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


FOUR_NUMBERS = np.arange(4, dtype=np.float32).tobytes()


def write_zip(file: Path, content: object, data: bytes = FOUR_NUMBERS, **entries: bytes) -> None:
    """Writes a file of torch.save with the given object in it, and one storage."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, entry in {"data.pkl": _pickle(content), "data/0": data, **entries}.items():
            archive.writestr(f"x/{name}", entry)


def write_legacy(file: Path, content: object, data: bytes = FOUR_NUMBERS, little_endian: bool = True) -> None:
    """Writes the same in the format before torch 1.6."""
    parts = [_pickle(part) for part in (MAGIC, 1001, {"little_endian": little_endian}, content, ["0"])]
    file.write_bytes(b"".join(parts) + struct.pack("<q", 4) + data)


WRITE = {"zip": write_zip, "legacy": write_legacy}
