"""Pickles of PyTorch, read without PyTorch and without running what is in them.

A pickle is a program: it names functions to be called. Here only those that describe tensors do something. They give
descriptions (`Tensor`) and nothing else, and the numbers are read afterwards. Every other name, as that of a class in a
training program's arguments, gives an `Unknown`, which does nothing.
"""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

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


class Unknown:
    """A stand-in for a class or function that does not describe tensors.

    A pickle can call it, make instances of it, and set their state and items. All of this has no effect.

    Attributes:
        name: the module and the name of what it stands for, "argparse.Namespace".
    """

    name: ClassVar[str]

    def __new__(cls, *_: Any, **__: Any) -> "Unknown":
        """Make an instance, whatever the arguments."""
        return super().__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> "Unknown":
        """Return itself: the result of an unknown function is as unknown."""
        return self

    def ignore(self, *_: Any) -> None:
        """Do nothing."""

    __init__ = __setstate__ = __setitem__ = append = extend = add = ignore


def describe_unknown(value: Any) -> str | None:
    """Return the module and name of an `Unknown` or of its instance; None for anything else."""
    kind = value if isinstance(value, type) else type(value)
    return kind.name if issubclass(kind, Unknown) else None


class Unpickler(pickle.Unpickler):
    """Reader of descriptions of tensors in dictionaries; everything else in them is an `Unknown`.

    A pickle can change the attributes of what it can name, so each instance has its own functions.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__(stream, encoding="utf-8")  # for strings of Python 2
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
        """Return what a name in the pickle refers to: a function or type of this reader, or a class of `Unknown`."""
        if (module, name) not in self.known:
            self.known[module, name] = type("Unknown", (Unknown,), {"name": f"{module}.{name}"})
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Record a storage that the pickle refers to. The other references are to classes of networks."""
        kind, value, key, *more = pid
        if kind == "module":
            return value
        if any(more[2:]):  # after the place and the length: a part of another storage
            raise ValueError("its numbers are in parts of storages, as PyTorch before 0.4 wrote them; save it anew")
        dtype = describe_unknown(value) or value
        return self.storages.setdefault(key, Storage(key, dtype))


def check_memo(stream: io.BufferedIOBase) -> None:
    """Check the places at which a pickle keeps values, and leave the stream where it is.

    The unpickler makes room for every place up to the one that is named: five bytes could take 32 GB. What writes
    pickles numbers the places one after the other, so a place is below the number of bytes before it.

    Raises:
        ValueError: a place is further, or the bytes are not a pickle.
    """
    start = stream.tell()
    for operation, place, _ in pickletools.genops(cast(IO[bytes], stream)):
        if isinstance(place, int) and operation.name.endswith("PUT") and place > stream.tell() - start:
            raise ValueError(f"a value is kept at the place {place}, which is out of order")
    stream.seek(start)


def check_number_type(name: Any) -> np.dtype:
    """Return the dtype of this name, after checking that it is one of `STORAGES`.

    NumPy also has types that are not numbers: bytes of the type "O" would be taken for addresses of objects.

    Raises:
        ValueError: the name is not one of `STORAGES`.
    """
    if not isinstance(name, str) or name not in STORAGES.values():
        raise ValueError(f"a storage has the type {name!r}, which is not a type of numbers")
    return jnp.dtype(name)
