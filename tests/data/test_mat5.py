"""Arrays of MATLAB files of version 5, compared with what SciPy reads, and files that are refused."""

import struct
import time

import numpy as np
import pytest
import scipy.io
from matlab_writer import save_mat5, save_sbd

from fcn_jax.data import mat5
from fcn_jax.data.mat5 import read_array
from fcn_jax.errors import InputError

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def element(kind, content, order="<"):
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def variable(kind, shape, name, rest, order="<", flags=0):
    start = element(6, struct.pack(order + "II", flags << 8 | kind, 0), order)
    start += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, start + element(1, name, order) + rest, order)


def write(file, *elements, mark=b"\0\1IM"):
    file.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + mark + b"".join(elements))
    return file


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_every_type_and_size(tmp_path, compressed):
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{'x'.join(map(str, shape))}": rng.integers(0, 100, shape).astype(kind)
        for kind in TYPES
        for shape in ((1, 1), (1, 3), (5, 7), (40, 30), (2, 3, 4), (0, 3))
    }
    file = save_mat5(tmp_path / "a.mat", {"text": "no numbers", "cells": np.array([1, "a"], object), **arrays})
    read = scipy.io.loadmat(file)
    for name in arrays:
        array = read_array(file, name, "it")
        np.testing.assert_array_equal(array, read[name])
        assert array.shape == read[name].shape


@pytest.mark.parametrize("compressed", [False, True])
def test_a_field_of_a_struct(tmp_path, compressed):
    mask = np.random.default_rng(0).integers(0, 21, (37, 50), np.uint8)
    file = save_sbd(tmp_path / "a.mat", mask, compressed=compressed)
    np.testing.assert_array_equal(read_array(file, "GTcls.Segmentation", "it"), mask)
    np.testing.assert_array_equal(scipy.io.loadmat(file)["GTcls"][0]["Segmentation"][0], mask)
    save_mat5(file, {"a": {"b": {"c": mask}}})
    np.testing.assert_array_equal(read_array(file, "a.b.c", "it"), mask)


def test_big_endian(tmp_path):
    numbers = element(3, np.arange(6, dtype=">i2").tobytes(), ">")
    file = write(tmp_path / "a.mat", variable(10, (2, 3), b"S", numbers, ">"), mark=b"\1\0MI")
    np.testing.assert_array_equal(read_array(file, "S", "it"), [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(scipy.io.loadmat(file)["S"], [[0, 2, 4], [1, 3, 5]])


def test_only_the_variable_is_unpacked(tmp_path, monkeypatch):
    """Another variable may be larger than what is read."""
    file = save_mat5(tmp_path / "a.mat", {"other": np.zeros((1000, 1000)), "S": np.ones((2, 2))})
    monkeypatch.setattr(mat5, "MOST", 100_000)
    np.testing.assert_array_equal(read_array(file, "S", "it"), np.ones((2, 2)))
    with pytest.raises(InputError, match="what is compressed is incomplete, or has more than 100000 bytes"):
        read_array(file, "other", "it")


ONE = element(2, b"\1")


@pytest.mark.parametrize(
    ("elements", "name", "message"),
    [
        ([], "S", "it has no variable 'S', but none at all"),
        ([variable(9, (1, 1), b"T", ONE)], "S", "it has no variable 'S', but 'T'"),
        ([element(7, b"abcd")], "S", "none at all"),
        ([variable(9, (1, 1), b"S", ONE)], "S.x", "what should have the field 'x' is no struct of one element"),
        ([variable(2, (2, 1), b"S", ONE)], "S.x", "no struct of one element"),
        ([variable(2, (1, 1), b"S", b"")], "S.x", "a struct has no list of fields"),
        ([variable(2, (1, 1), b"S", element(5, struct.pack("<i", 2)) + element(1, b"a\0b\0"))], "S.x", "'a', 'b'"),
        ([variable(2, (1, 1), b"S", element(5, struct.pack("<i", 0)) + element(1, b""))], "S.x", "none at all"),
        ([variable(9, (1 << 30, 1 << 30), b"S", ONE)], "S", "cannot reshape"),
        ([variable(9, (-1, 1), b"S", ONE)], "S", "negative sizes"),
        ([variable(4, (1, 1), b"S", ONE)], "S", "no array of real numbers"),
        ([variable(9, (1, 1), b"S", ONE, flags=8)], "S", "no array of real numbers"),
        ([variable(9, (1, 1), b"S", b"")], "S", "no array of real numbers"),
        ([element(14, element(6, bytes(8)))], "S", "no flags, sizes and name"),
        ([struct.pack("<II", 14, 100)], "S", "an element of 100 bytes has 0"),
        ([b"\1\0\0"], "S", "unpack_from requires"),
        ([element(15, b"no zlib")], "S", "incorrect header check"),
    ],
)
def test_damaged_files(tmp_path, elements, name, message):
    file = write(tmp_path / "a.mat", *elements)
    with pytest.raises(InputError, match=message) as caught:
        read_array(file, name, "mask a.mat")
    assert str(caught.value).startswith(f"mask a.mat cannot be read as a MATLAB file with the variable {name} (")
    assert str(caught.value).endswith("it is damaged or another file; get it anew")


def test_files_that_are_none(tmp_path):
    file = tmp_path / "a.mat"
    with pytest.raises(InputError, match=r"mask a.mat cannot be read in .*No such file.* add the file a.mat"):
        read_array(file, "S", "mask a.mat")
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    with pytest.raises(InputError, match=r"mask a.mat is a pointer of Git LFS"):
        read_array(file, "S", "mask a.mat")
    file.write_bytes(b"text" * 100)
    with pytest.raises(InputError, match="it has no header of a MATLAB file of version 5"):
        read_array(file, "S", "mask a.mat")


def test_every_truncation(tmp_path):
    file = save_sbd(tmp_path / "a.mat", np.zeros((4, 5), np.uint8), compressed=False)
    whole = file.read_bytes()
    end = whole.index(b"CategoriesPresent") + len(whole) // 2
    for size in range(0, min(end, len(whole) // 2), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_array(file, "GTcls.Segmentation", "it")


def test_what_stops_other_readers(tmp_path):
    """A struct of two thousand million elements without fields, and cells within cells."""
    endless = variable(2, (2**31 - 1, 1), b"T", element(5, struct.pack("<i", 32)) + element(1, b""))
    nested = ONE
    for _ in range(2000):
        nested = variable(1, (1, 1), b"", nested)
    file = write(tmp_path / "a.mat", endless, variable(1, (1, 1), b"U", nested), variable(9, (1, 1), b"S", ONE))
    before = time.monotonic()
    assert read_array(file, "S", "it").item() == 1
    assert time.monotonic() - before < 5
