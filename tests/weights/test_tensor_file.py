"""Formats told by their first bytes, and files that hold no tensors."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from fcn_jax.errors import InputError
from fcn_jax.weights.tensor_file import read_tensors


def test_safetensors_are_read_whatever_their_name(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "x.pth")
    assert read_tensors(tmp_path / "x.pth")[0]["a"].tolist() == [0, 1, 2]


@pytest.mark.peers
def test_pytorch_s_files_are_read_whatever_their_name(torch, tmp_path):
    torch.save({"a": torch.arange(3.0)}, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors")[0]["a"].tolist() == [0, 1, 2]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, b"content")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, as a failed download leaves it"),
        (b"<!DOCTYPE html>\n<html>Quota exceeded</html>" * 9, r"is text \('<!DOCTYPE html>'\), as a failed download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS, .* git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), r"not supported \(it starts with b'\\x89HDF"),
        (pickle.dumps({"a": np.ones(3)}), "is a pickle, which can run any code"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(300), r"is a MATLAB file; read it with scipy\.io\.loadmat"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(300), r"\(or h5py, from version 7\.3 on\)"),
        # ir_version 8, producer_name "pytorch", as torch.onnx.export writes them.
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(300), "is an ONNX file; give the weights that it was made"),
        (b"\x1c\0\0\0TFL3" + bytes(300), "is a TensorFlow Lite file"),
        (npy(np.ones(3)), "is one array of NumPy without a name"),
        (archive("metadata.json", "config.json", "model.weights.h5"), r"is a \.keras archive; unpack it, and give its"),
        (archive("a.npy", "b.npy"), r"is an \.npz archive of NumPy; save its arrays by name"),
    ],
    ids=["empty", "page", "lfs", "hdf5", "pickle", "mat5", "mat7", "onnx", "tflite", "npy", "keras", "npz"],
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
