"""The content of a .caffemodel file: the net's name, and the names and blobs of its layers.

The file is a protocol buffer, `NetParameter` of Caffe's caffe.proto. Only a few of its fields are needed, so the wire
format (https://protobuf.dev/programming-guides/encoding) is read directly. A message is a sequence of fields. Each
field has a key (number and wire type) and a value: a varint, 4 or 8 bytes, or a length followed by that many bytes.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_jax.errors import InputError

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5

# Numbers of fields in caffe.proto. Those of name and blobs depend on the kind of layer in NetParameter.
NET_NAME = 1
LAYER_NAME_AND_BLOBS = {2: (4, 6), 100: (1, 7)}  # V1LayerParameter (2014), LayerParameter (since)
SHAPE, SHAPE_DIM = 7, 1
LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
DATA, DOUBLE_DATA = 5, 8
MOST_AXES = 32  # kMaxBlobAxes of Caffe's blob.hpp


class Layer(NamedTuple):
    """A layer with weights.

    Attributes:
        name: the layer's name in the net.
        blobs: float32 arrays, mostly kernel and bias. They are views of the file.
    """

    name: str
    blobs: tuple[np.ndarray, ...]


class _MalformedError(Exception):
    """Bytes that are not a NetParameter; the text says why."""


def read_layers(file: Path) -> tuple[str, list[Layer]]:
    """Read the net's name ("" if it has none) and its layers that have weights, in the order of the net.

    Raises:
        InputError: the file is missing, empty, damaged, cut short, or of another format.
    """
    if not file.is_file() or file.stat().st_size == 0:
        what = "is empty" if file.is_file() else "is no file"
        raise InputError(f"{file} {what}; give the .caffemodel of a trained Caffe net")
    with file.open("rb") as opened:
        # It stays open: the blobs are views of it, and it lives as long as they do.
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    name, layers = "", []
    try:
        for number, value in _read_fields(content):
            if number == NET_NAME:
                name = _read_text(value)
            elif number in LAYER_NAME_AND_BLOBS:
                layer = _read_layer(_require_bytes(value), *LAYER_NAME_AND_BLOBS[number])
                layers += [layer] if layer.blobs else []
        if not layers:
            raise _MalformedError("no layer in it has weights (nets of before 2014: upgrade_net_proto_binary of Caffe)")
    except _MalformedError as error:
        start = bytes(content[:64])
        text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
        hint = f"; it is text, and begins with {start[:24].decode('ascii')!r}" if text else ""
        raise InputError(
            f"{file} ({len(content)} bytes) is no whole .caffemodel: {error}{hint}; download it again and compare its "
            "size with the server's"
        ) from None
    return name, layers


def _read_layer(message: memoryview, name_field: int, blobs_field: int) -> Layer:
    name, blobs = "", []
    for number, value in _read_fields(message):
        if number == name_field:
            name = _read_text(value)
        elif number == blobs_field:
            try:
                blobs.append(_read_blob(_require_bytes(value)))
            except _MalformedError as error:
                raise _MalformedError(f"in layer {name!r}, {error}") from None
    return Layer(name, tuple(blobs))


def _read_blob(message: memoryview) -> np.ndarray:
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in _read_fields(message):
        if number == SHAPE:
            dims = [sizes for field, sizes in _read_fields(_require_bytes(value)) if field == SHAPE_DIM]
            shape = [size for sizes in dims for size in _read_ints(sizes)]
        elif number in LEGACY_SHAPE and isinstance(value, int):
            legacy[number] = value
        elif number == DATA:
            floats.append(_require_bytes(value))
        elif number == DOUBLE_DATA:
            doubles.append(_require_bytes(value))
    # Packed values are one field; otherwise each value is a field.
    chunks, kind = (doubles, "<f8") if doubles else (floats, "<f4")
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if shape is None:
        shape = [legacy.get(number, 0) for number in LEGACY_SHAPE]
    if len(shape) > MOST_AXES:
        raise _MalformedError(f"a blob has {len(shape)} axes")
    if not data or len(data) != math.prod(shape) * np.dtype(kind).itemsize:
        raise _MalformedError(f"a blob of the shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, kind).astype(np.float32, copy=False).reshape(shape)


def _read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: their numbers with integers or bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _read_varint(message, at)
        elif wire in (EIGHT_BYTES, FOUR_BYTES, BYTES):
            size = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(wire)
            if size is None:
                size, at = _read_varint(message, at)
            if size > len(message) - at:
                raise _MalformedError(f"field {number} should have {size} bytes where only {len(message) - at} follow")
            value = message[at : at + size]
            at += size
        else:
            raise _MalformedError(f"there is a field {number} of wire type {wire}, which Caffe does not write")
        yield number, value


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read an integer in base 128, least digit first, and where it ends. A high bit says that more digits follow."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise _MalformedError("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _MalformedError("a number has more than ten bytes")


def _read_ints(value: int | memoryview) -> Iterator[int]:
    """Yield the integers of a field: one, or several that are packed."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _read_varint(value, at)
        yield number


def _require_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _MalformedError(f"there is the number {value} where bytes should be")
    return value


def _read_text(value: int | memoryview) -> str:
    return bytes(_require_bytes(value)).decode("utf-8", errors="replace")
