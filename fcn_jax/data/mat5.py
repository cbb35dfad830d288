"""One array of a MATLAB file of version 5, which is what MATLAB saves unless it is told otherwise.

The layout is that of MathWorks' "MAT-File Format". A file is a header of 128 bytes and elements: a type, a number of
bytes, and these bytes. A variable is an element that contains others: flags, sizes, a name and values. The values of a
struct are variables again, one for each field. An element may be compressed as a whole.

SciPy's `loadmat` is for files that one trusts: deeply nested cells end the process, and a struct without fields takes
minutes from 80 bytes. Here only the elements on the way to one array are read.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.runtime.files import is_lfs_pointer

HEADER = 128
MOST = 1 << 28  # bytes that a compressed element may have: enough for 5000x5000 numbers in double precision
_HEAD = 1 << 10  # first bytes of a variable that contain its name, of at most 63 letters, after at most 32 sizes
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT, _DOUBLE, _UINT64 = 2, 6, 15  # classes of variables; numbers are of the classes 6 to 15
_COMPLEX = 8  # a flag

Elements = Iterator[tuple[int, memoryview]]


class _Variable(NamedTuple):
    """A variable whose values are not read yet."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    rest: Elements


def read_array(file: Path, variable: str, name: str) -> np.ndarray:
    """Read an array of real numbers.

    Args:
        file: a `.mat` file of version 5.
        variable: name of the variable, or of a field in it, such as `GTcls.Segmentation`.
        name: what the file is, for messages.

    Returns:
        The array with the shape that it has in MATLAB, and the type in which its numbers are stored.

    Raises:
        InputError: the file cannot be read, is damaged, unpacks to more than `MOST` bytes, or has no such array; the
            text says which variables or fields there are.
    """
    data = read_file(file, name)
    try:
        return _read(data, variable.split("."))
    except (ValueError, struct.error, zlib.error) as error:
        raise describe_damage(name, variable, error) from error


def read_file(file: Path, name: str) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: it cannot be read, or is what Git leaves in place of a file that was not fetched.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{name} cannot be read in {file.parent} ({error.strerror}); add the file {file.name}"
        ) from error
    if is_lfs_pointer(data):
        raise InputError(f"{name} is a pointer of Git LFS, not the file itself; fetch it with git lfs pull")
    return data


def describe_damage(name: str, variable: str, error: Exception) -> InputError:
    """Make the error of a file that has no such array."""
    return InputError(
        f"{name} cannot be read as a MATLAB file with the variable {variable} ({error}): it is damaged or another "
        "file; get it anew"
    )


def _read(data: bytes, path: Sequence[str]) -> np.ndarray:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
    if order is None:
        raise ValueError("it has no header of a MATLAB file of version 5")
    names = []
    for kind, content in _list_elements(memoryview(data)[HEADER:], order):
        body = content
        if kind == _COMPRESSED:
            kind, body = _open_variable(_unpack(content, _HEAD), order)
        if kind != _MATRIX:
            continue
        variable = _read_start(body, order)
        if variable.name == path[0]:
            if body is not content:
                variable = _read_start(_open_variable(_unpack(content), order)[1], order)
            for field in path[1:]:
                variable = _find_field(variable, field, order)
            return _read_numbers(variable, order)
        names.append(variable.name)
    raise ValueError(f"it has no variable {path[0]!r}, but {', '.join(map(repr, names)) or 'none at all'}")


def _list_elements(data: memoryview, order: str) -> Elements:
    """Yield type and bytes of each element."""
    place = 0
    while place < len(data):
        (word,) = struct.unpack_from(f"{order}I", data, place)
        if word >> 16:  # a small element: size and type share a word, and four bytes of data follow
            kind, size, start, end = word & 0xFFFF, word >> 16, place + 4, place + 8
        else:
            kind, (size,), start = word, struct.unpack_from(f"{order}I", data, place + 4), place + 8
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if size > min(end, len(data)) - start:
            raise ValueError(f"an element of {size} bytes has {min(end, len(data)) - start}")
        yield kind, data[start : start + size]
        place = end


def _unpack(packed: memoryview, first: int | None = None) -> memoryview:
    """Decompress an element, or its first bytes."""
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, first or MOST)
    if not first and not unpacker.eof:
        raise ValueError(f"what is compressed is incomplete, or has more than {MOST} bytes")
    return memoryview(data)


def _open_variable(data: memoryview, order: str) -> tuple[int, memoryview]:
    """Return type and content of the only element of compressed data, of which the end may be missing."""
    return struct.unpack_from(f"{order}I", data)[0], data[8:]


def _read_start(data: memoryview, order: str) -> _Variable:
    elements = _list_elements(data, order)
    parts = [content for _, (_, content) in zip(range(3), elements, strict=False)]
    if len(parts) < 3:
        raise ValueError("a variable has no flags, sizes and name")
    flags, sizes, name = parts
    (word,) = struct.unpack_from(f"{order}I", flags)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape, default=0) < 0:
        raise ValueError(f"a variable has the negative sizes {list(shape)}")
    return _Variable(bytes(name).decode("latin-1"), word & 0xFF, bool(word >> 8 & _COMPLEX), shape, elements)


def _find_field(variable: _Variable, field: str, order: str) -> _Variable:
    if variable.kind != _STRUCT or math.prod(variable.shape) != 1:
        raise ValueError(f"what should have the field {field!r} is no struct of one element")
    length, names = next(variable.rest, None), next(variable.rest, None)
    if length is None or names is None:
        raise ValueError("a struct has no list of fields")
    (width,) = struct.unpack(f"{order}i", length[1])
    text = bytes(names[1]).decode("latin-1")
    fields = [text[i : i + width].partition("\0")[0] for i in range(0, len(text), width)] if width > 0 else []
    for name, (kind, content) in zip(fields, variable.rest, strict=False):
        if name == field and kind == _MATRIX:
            return _read_start(content, order)
    raise ValueError(f"a struct has no field {field!r}, but {', '.join(map(repr, fields[:5])) or 'none at all'}")


def _read_numbers(variable: _Variable, order: str) -> np.ndarray:
    kind, content = next(variable.rest, (0, memoryview(b"")))
    if not _DOUBLE <= variable.kind <= _UINT64 or variable.is_complex or kind not in _NUMBERS:
        raise ValueError("the variable is no array of real numbers")
    values = np.frombuffer(content, np.dtype(order + _NUMBERS[kind]))
    return values.reshape(variable.shape, order="F")  # a ValueError if there are more or fewer
