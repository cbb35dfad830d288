"""Formats told by their first bytes, and files that hold no tensors."""

import pickle

import numpy as np
import pytest
import safetensors.numpy

from fcn_jax.errors import InputError
from fcn_jax.weights.tensor_file import read_tensors


def test_safetensors_are_read_whatever_their_name(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "x.pth")
    assert read_tensors(tmp_path / "x.pth")["a"].tolist() == [0, 1, 2]


@pytest.mark.peers
def test_pytorch_s_files_are_read_whatever_their_name(torch, tmp_path):
    torch.save({"a": torch.arange(3.0)}, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, as a failed download leaves it"),
        (b"<!DOCTYPE html>\n<html>Quota exceeded</html>" * 9, r"is text \('<!DOCTYPE html>'\), as a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"is text \('version https://git-lfs"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), r"not supported \(it starts with b'\\x89HDF"),
        (pickle.dumps({"a": np.ones(3)}), "is of a format that is not supported"),
    ],
    ids=["empty", "page", "lfs", "hdf5", "pickle"],
)
def test_other_files_are_described(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pth .*{message}.*weights come as"):
        read_tensors(tmp_path / "x.pth")


def test_missing_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(InputError, match="is not a file"):
            read_tensors(path)


@pytest.mark.peers
@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"model": {"epoch": 3}}])
def test_files_without_tensors_are_refused(torch, tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.peers
def test_tensors_without_a_name_do_not_count(torch, tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_tensors(tmp_path / "x.pth")


def test_an_empty_safetensors_file_is_refused(tmp_path):
    safetensors.numpy.save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_tensors(tmp_path / "x.safetensors")
