"""The format of a file is told by its first bytes."""

import zipfile

import caffe_peer
import h5py
import numpy as np
import pytest

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights import ours
from fcn_jax.weights.read import CAFFE_FIELDS, HDF5, read_weights


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing cannot be read"):
        read_weights(tmp_path / "nothing")
    for content, what in ((b"", "is empty"), (b"<!DOCTYPE html><html>", "is text"), (b"GIF89a" + bytes(30), "format")):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(InputError, match=f"other .*{what}"):
            read_weights(tmp_path / "other")


@pytest.mark.parametrize("v1", [True, False])
@pytest.mark.parametrize("net", ["", "a net"])
def test_a_caffemodel_is_known_by_its_first_field(tmp_path, v1, net):
    blobs = {"conv1_1": [np.arange(4 * 3 * 9, dtype=np.float32).reshape(4, 3, 3, 3), np.ones(4, np.float32)]}
    (tmp_path / "w.pth").write_bytes(caffe_peer.caffemodel(None, blobs, net, v1=v1))
    weights = read_weights(tmp_path / "w.pth")
    assert set(weights.arrays) == {"params/backbone/conv1_1/kernel", "params/backbone/conv1_1/bias"}
    assert weights.input == CAFFE_INPUT
    assert "Caffe" in weights.origin


def test_a_keras_file_is_known_by_its_beginning(tmp_path):
    with h5py.File(tmp_path / "w.caffemodel", "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "block1_conv1"
        group["0"], group["1"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)
    weights = read_weights(tmp_path / "w.caffemodel")
    assert set(weights.arrays) == {"params/backbone/conv1_1/kernel", "params/backbone/conv1_1/bias"}
    assert "Keras" in weights.origin


@pytest.mark.peers
def test_a_pytorch_file_is_known_by_its_beginning_and_as_good_once_converted(torch, tmp_path):
    state = {"layer1.0.conv1.weight": torch.arange(8 * 3 * 9.0).reshape(8, 3, 3, 3), "fc.weight": torch.ones(2, 3)}
    torch.save(state, tmp_path / "w.h5")
    weights = read_weights(tmp_path / "w.h5")
    assert list(weights.arrays) == ["params/backbone/layer1_0/conv1/kernel"]
    assert weights.unknown == ("fc.weight",)
    ours.write(tmp_path / "w.pth", weights)
    back = read_weights(tmp_path / "w.pth")
    np.testing.assert_array_equal(*(x.arrays["params/backbone/layer1_0/conv1/kernel"] for x in (back, weights)))
    assert back.input == weights.input == InputConfig()
    assert "PyTorch" in back.origin


def test_a_caffemodel_starts_with_one_of_the_fields_of_a_net():
    blobs = {"conv1_1": [np.ones((4, 3, 3, 3), np.float32)]}
    for options in ({"v1": True}, {"v1": False}, {"name": "VGG"}):
        content = caffe_peer.caffemodel(None, blobs, **options)
        content = content if options.get("name") else content[2:]
        assert content.startswith(CAFFE_FIELDS)
    others = (b"PK\x03\x04", b"\x80\x02", HDF5, b"<html>", b"")
    assert not any(start.startswith(CAFFE_FIELDS) for start in others)


@pytest.mark.parametrize("first", range(256))
def test_a_file_of_one_byte(tmp_path, first):
    (tmp_path / "x").write_bytes(bytes([first]))
    with pytest.raises(InputError):
        read_weights(tmp_path / "x")


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18)])
def test_zip_files_without_a_sound_list_of_entries(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError):
        read_weights(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a", b"")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99  # a version that zipfile does not read
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged or cut short .*zip file version"):
        read_weights(tmp_path / "x.pth")
