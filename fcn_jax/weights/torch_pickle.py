"""Pickles of PyTorch, read without PyTorch and without running what is in them.

A pickle is a program: it names functions to be called. Here it may name only those that describe tensors. They give
descriptions (`Tensor`) and nothing else, and the numbers are read afterwards.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fcn_jax.errors import InputError

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


class Storage(NamedTuple):
    """A sequence of numbers of one type in the file."""

    key: str
    dtype: str


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        """Ignore the state of parameters of torch before 0.4, which only training needs."""

    def read(self, read_storage: Callable[[str], bytes]) -> np.ndarray:
        """Make an array of a storage's bytes. NumPy checks that the view stays within them.

        A pickle can build a tensor on anything, and a storage of any type, so both are checked here.
        """
        if not isinstance(self.storage, Storage):
            raise ValueError(f"a tensor's numbers are in a {type(self.storage).__name__}, which is no storage")
        dtype = check_number_type(self.storage.dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, read_storage(self.storage.key), self.offset * dtype.itemsize, strides)


class Unpickler(pickle.Unpickler):
    """Reader of descriptions of tensors in dictionaries; it refuses every other name.

    A pickle can change the attributes of what it can name, so each instance has its own functions.
    """

    def __init__(self, stream: io.BufferedIOBase, file: Path) -> None:
        super().__init__(stream, encoding="utf-8")  # for strings of Python 2
        self.file = file
        self.storages: dict[str, Storage] = {}
        self.known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): lambda storage, *view: Tensor(storage, *view),
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, *view: Tensor(storage, *view[:3]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch.nn.parameter", "Parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the pickle refers to.

        Raises:
            InputError: the name does not describe tensors.
        """
        if (module, name) not in self.known:
            raise InputError(
                f"{self.file} refers to {module}.{name}, which is no tensor and could run code when read, so it is "
                "refused; save the weights alone: torch.save(model.state_dict(), file)"
            )
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """Record a storage that the pickle refers to."""
        _, dtype, key, *_ = pid
        return self.storages.setdefault(key, Storage(key, dtype))


def check_number_type(name: Any) -> np.dtype:
    """Return the dtype of this name, after checking that it is one of `STORAGES`.

    NumPy also has types that are not numbers: bytes of the type "O" would be taken for addresses of objects.

    Raises:
        ValueError: the name is not one of `STORAGES`.
    """
    if not isinstance(name, str) or name not in STORAGES.values():
        raise ValueError(f"a storage has the type {name!r}, which is not a type of numbers")
    return jnp.dtype(name)
