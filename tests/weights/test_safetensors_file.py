"""Safetensors against the definition of the format, and files that are damaged."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fcn_jax.errors import InputError
from fcn_jax.weights.safetensors_file import is_safetensors, read_notes, read_safetensors

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def write_by_definition(file: Path, arrays: dict[str, np.ndarray], notes: dict[str, str] | None = None) -> None:
    """Writes as the format's README says: u64 length of the header, header in JSON, numbers without holes."""
    names = {np.dtype(kind): name for name, kind in TYPES.items()}
    header, body = {} if notes is None else {"__metadata__": notes}, b""
    for name, array in arrays.items():
        data = array.tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def arrays_of_all_types() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0).normal(0, 50, (3, 2, 5))
    return {name: numbers.astype(kind) for name, kind in TYPES.items()}


@pytest.mark.parametrize("notes", [None, {"format": "pt", "höhe": "ü"}])
def test_every_type_and_shape_is_read(tmp_path, notes):
    arrays = arrays_of_all_types() | {"scalar": np.array(7, np.int64), "none/é": np.zeros((0, 4), np.float32)}
    write_by_definition(tmp_path / "x", arrays, notes)
    assert is_safetensors((tmp_path / "x").read_bytes())
    got = read_safetensors(tmp_path / "x")
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array, strict=True)
    assert read_notes(tmp_path / "x") == (notes or {})


def test_bfloat16_needs_no_other_module(tmp_path):
    write_by_definition(tmp_path / "x", {"a": np.ones(2, ml_dtypes.bfloat16)})
    code = "import sys, pathlib; from fcn_jax.weights.safetensors_file import read_safetensors as read\n"
    code += "print(read(pathlib.Path(sys.argv[1]))['a'].dtype)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True)
    assert done.stdout == "bfloat16\n", done.stderr


@pytest.mark.parametrize(
    "start", [b"", b"PK\x03\x04" + bytes(9), b"\x89HDF\r\n\x1a\n" + bytes(9), b"<!DOCTYPE html>", b'{"a": [1]}']
)
def test_other_files_are_told_apart(start):
    assert not is_safetensors(start)


def test_files_that_are_cut_off_are_refused(tmp_path):
    write_by_definition(tmp_path / "whole", arrays_of_all_types())
    whole = (tmp_path / "whole").read_bytes()
    for length in {*range(0, len(whole), 97), 8, 9, len(whole) - 1}:
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut is damaged or cut short"):
            read_safetensors(tmp_path / "cut")
    (tmp_path / "long").write_bytes(whole + b"\0")
    for read in (read_safetensors, read_notes):
        with pytest.raises(InputError, match="long is damaged or cut short"):
            read(tmp_path / "long")


def test_changed_bits_end_in_no_other_error(tmp_path):
    write_by_definition(tmp_path / "x", arrays_of_all_types(), {"format": "pt"})
    whole = (tmp_path / "x").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(len(whole) // 2, size=400):  # the header is the first half
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        (tmp_path / "x").write_bytes(damaged)
        try:
            read_safetensors(tmp_path / "x")
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
    ],
    ids=["too few bytes", "a rest", "outside", "negative", "no type", "no shape"],
)
def test_headers_that_contradict_the_numbers_are_refused(tmp_path, entry):
    text = json.dumps({"weight": entry}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match="x is damaged or cut short"):
        read_safetensors(tmp_path / "x")


@pytest.mark.parametrize(("kind", "shape"), [("F8_E4M3", 8), ("F8_E5M2", 8), ("F4", 16)])
def test_types_that_numpy_lacks_are_named(tmp_path, kind, shape):
    text = json.dumps({"weight": {"dtype": kind, "shape": [shape], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match=f"tensor 'weight' of .*x has the type {kind}.*save it as float32"):
        read_safetensors(tmp_path / "x")
