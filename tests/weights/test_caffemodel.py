"""The format of .caffemodel files, and files that are damaged or of another format."""

import caffe_peer
import numpy as np
import pytest

from fcn_jax.errors import InputError
from fcn_jax.weights.caffemodel import Layer, read_layers

SHAPES = {"conv1_1": [(4, 3, 3, 3), (4,)], "fc6": [(5, 4 * 3 * 3), (5,)], "fc8": [(7, 5), (7,)]}
GENERATOR = np.random.default_rng(0)
SMALL = {
    name: [GENERATOR.standard_normal(shape).astype(np.float32) for shape in shapes] for name, shapes in SHAPES.items()
}


def read(folder, content: bytes) -> tuple[str, list[Layer]]:
    (folder / "net.caffemodel").write_bytes(content)
    return read_layers(folder / "net.caffemodel")


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_every_form_of_the_format_reads_the_same(tmp_path, v1, legacy, packed, double):
    content = caffe_peer.caffemodel(None, SMALL, "toy", v1=v1, legacy=legacy, packed=packed, double=double)
    net, layers = read(tmp_path, content)
    assert net == "toy"
    assert [layer.name for layer in layers] == list(SMALL)
    for layer in layers:
        for blob, expected in zip(layer.blobs, SMALL[layer.name], strict=True):
            assert blob.dtype == np.float32
            np.testing.assert_array_equal(blob.ravel(), expected.ravel())
            assert blob.shape == ((1,) * (4 - expected.ndim) + expected.shape if legacy else expected.shape)


def test_layers_without_weights_are_left_out(tmp_path):
    data = caffe_peer.field(100, caffe_peer.field(1, b"data"))
    _, layers = read(tmp_path, data + caffe_peer.caffemodel(None, SMALL))
    assert [layer.name for layer in layers] == list(SMALL)


def test_files_that_were_cut_off_are_refused(tmp_path):
    content = caffe_peer.caffemodel(None, SMALL)
    starts = {0, *(content.index(name.encode()) - 2 for name in SMALL)}  # roughly where layers begin
    for size in range(1, len(content), 7):
        if min(abs(size - start) for start in starts) > 4:
            with pytest.raises(InputError, match=r"\(\d+ bytes\) is no whole \.caffemodel: .*; download it again"):
                read(tmp_path, content[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty; give the \.caffemodel"),
        (b"<!DOCTYPE html>\n<html><head><title>Moved</title>", r"it is text, and begins with '<!DOCTYPE html>"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is text, and begins with 'version https://git-lfs"),
        (b'name: "VGG"\nlayer {}\n', "wire type 6, which Caffe does not write.*it is text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "no whole"),
        (b"\x80" * 30, "a number has more than ten bytes"),
        (caffe_peer.field(1, 7), "there is the number 7 where bytes should be"),
        (caffe_peer.field(1, b"graph") + caffe_peer.field(8, b"\x0a\x04node"), "no layer in it has weights"),
        (caffe_peer.field(100, caffe_peer.field(1, b"data")), "no layer in it has weights"),
        (
            caffe_peer.field(100, caffe_peer.field(1, b"c") + caffe_peer.field(7, caffe_peer.field(5, b"1234567"))),
            r"in layer 'c', a blob of the shape \[0, 0, 0, 0\] has 7 bytes",
        ),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        read_layers(tmp_path / "missing.caffemodel")
