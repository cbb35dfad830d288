"""Our own files: read as they were written, by this version and the former one."""

import numpy as np
import pytest
import safetensors

from fcn_jax.config import CAFFE_INPUT
from fcn_jax.errors import InputError
from fcn_jax.weights import ours
from fcn_jax.weights.read import read_weights
from fcn_jax.weights.weights import Weights

SMALL = Weights(
    {
        "params/score_fr/bias": np.array([1.5, -2.0], np.float32),
        "params/backbone/conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "params/a scalar/é": np.array(7.0, np.float32),
    },
    (),
    CAFFE_INPUT,
    "x.caffemodel (Caffe)",
    ("ground", "höhe"),
)
# Written by the version before safetensors' own library was used, with a note for each entry.
FORMER = (
    b"\x80\x01\x00\x00\x00\x00\x00\x00"
    rb'{"__metadata__": {"format": "fcn_jax", "origin": "\"x.caffemodel (Caffe)\"", '
    rb'"input": "{\"order\": \"bgr\", \"mean\": [104.00699, 116.66877, 122.67892], \"std\": [1.0, 1.0, 1.0]}", '
    rb'"class_names": "[\"ground\", \"h\\u00f6he\"]"}, '
    b'"params/score_fr/bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
    b'"params/\xc3\xa9": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]}}       '
    b"\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00\xe0@"
)


def assert_same_arrays(left: Weights, right: Weights) -> None:
    assert left.arrays.keys() == right.arrays.keys()
    for path, array in left.arrays.items():
        np.testing.assert_array_equal(array, right.arrays[path], strict=True)


@pytest.mark.parametrize("weights", [SMALL, SMALL._replace(input=None, class_names=None)], ids=["told", "not told"])
def test_what_is_written_is_read(tmp_path, weights):
    file = tmp_path / "any.name"
    ours.write(file, weights)
    back = read_weights(file)
    assert_same_arrays(back, weights)
    assert back.input == weights.input
    assert back.class_names == weights.class_names
    assert back.unknown == ()
    assert back.origin == "any.name (fcn_jax, from x.caffemodel (Caffe))"
    assert [path.name for path in tmp_path.iterdir()] == ["any.name"]
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it


def test_arrays_are_stored_as_contiguous_float32(tmp_path):
    arrays = {"params/a/kernel": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2], "params/a/bias": np.ones(3)}
    ours.write(tmp_path / "w", SMALL._replace(arrays=arrays))
    back = read_weights(tmp_path / "w").arrays
    for path, array in arrays.items():
        np.testing.assert_array_equal(back[path], array.astype(np.float32), strict=True)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    turned = SMALL._replace(arrays=dict(reversed(SMALL.arrays.items())))
    for number in range(5):
        ours.write(tmp_path / f"w{number}", turned if number % 2 else SMALL)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_files_of_the_former_version_are_read(tmp_path):
    (tmp_path / "w").write_bytes(FORMER)
    back = read_weights(tmp_path / "w")
    arrays = {"params/score_fr/bias": SMALL.arrays["params/score_fr/bias"], "params/é": np.array(7.0, np.float32)}
    assert_same_arrays(back, SMALL._replace(arrays=arrays))
    assert back[1:] == ((), CAFFE_INPUT, "w (fcn_jax, from x.caffemodel (Caffe))", ("ground", "höhe"))


def test_files_saved_again_with_the_library_stay_ours(tmp_path):
    """The library writes notes in any order."""
    (tmp_path / "former").write_bytes(FORMER)
    ours.write(tmp_path / "new", SMALL)
    for name in ("former", "new"):
        with safetensors.safe_open(tmp_path / name, "np") as file:
            safetensors.numpy.save_file(file.get_tensors(), tmp_path / "again", file.metadata())
        assert ours.is_ours(tmp_path / "again")
        assert read_weights(tmp_path / "again").class_names == ("ground", "höhe")


@pytest.mark.parametrize("notes", [None, {}, {"format": "pt"}])
def test_other_safetensors_are_not_ours(tmp_path, notes):
    safetensors.numpy.save_file(SMALL.arrays, tmp_path / "w", notes)
    assert not ours.is_ours(tmp_path / "w")


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    ours.write(tmp_path / "whole", SMALL)
    data = (tmp_path / "whole").read_bytes()
    for length in (*range(9, len(data), 7), len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(InputError, match="cut is damaged or cut short"):
            read_weights(tmp_path / "cut")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"\"order\"", rb"\"ordnr\""),
        (rb"[104.00699", rb"{104.00699"),
        (b'"class_names"', b'"klass_names"'),
        (rb"\"mean\": [1", rb"\"mean\": 1[1"),
        (rb'"input": "{', rb'"input": "['),
        (rb"\"std\": [1.0,", rb"\"std\": [0.0,"),
    ],
)
def test_notes_that_make_no_sense_are_refused(tmp_path, old, new):
    assert old in FORMER
    damaged = FORMER.replace(old, new)
    (tmp_path / "w").write_bytes(damaged if len(damaged) == len(FORMER) else damaged.replace(b"  ", b" ", 1))
    with pytest.raises(InputError, match="w is damaged: its notes cannot be read"):
        read_weights(tmp_path / "w")


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{}",
        "[]",
        "null",
        "[" * 100_000,
        '{"origin": 1, "input": 2, "class_names": 3}',
        '{"origin": "a", "input": null, "class_names": [1]}',
        '{"origin": "a", "input": {"order": "rbg"}, "class_names": null}',
        '{"origin": "a", "input": {"mean": [1%s, 0, 0]}, "class_names": null}' % ("0" * 400),
    ],
)
def test_a_note_that_makes_no_sense_is_refused(tmp_path, note):
    safetensors.numpy.save_file(SMALL.arrays, tmp_path / "w", {"fcn_jax": note})
    with pytest.raises(InputError, match="w is damaged: its notes cannot be read"):
        read_weights(tmp_path / "w")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"w cannot be written \(No such file or directory\).*another --out"):
        ours.write(tmp_path / "no" / "w", SMALL)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder cannot be written"):
        ours.write(tmp_path / "folder", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
