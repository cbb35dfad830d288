"""Masks in MATLAB files of both versions, and single examples of a file that has all."""

import h5py
import numpy as np
import pytest
from drawn import picture, save
from matlab_writer import save_mat5, save_mat73
from one_task import read_pair

from fcn_jax.data import mat_files
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.mat_files import UNLABELLED, read_mask_array, read_slice
from fcn_jax.data.sources.nyud import take_colour
from fcn_jax.errors import InputError

MASK = np.array([[0, 1, 458, 3], [65534, 5, 6, 7]])


@pytest.mark.parametrize("kind", ["u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("write", [save_mat5, save_mat73])
def test_numbers_of_both_versions(tmp_path, write, kind):
    numbers = read_mask_array(write(tmp_path / "a.mat", {"S": MASK.astype(kind), "names": MASK}), "S")
    assert numbers.dtype == np.uint16
    np.testing.assert_array_equal(numbers, MASK)


def test_unlabelled_pixels(tmp_path):
    file = save_mat5(tmp_path / "a.mat", {"S": np.array([[-1, 1], [2, 3]], np.int16)})
    np.testing.assert_array_equal(read_mask_array(file, "S"), [[UNLABELLED, 1], [2, 3]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.5, 1]]), "has values from 0.5 to 1.0 that are not all whole numbers from 0 to 65534, or -1"),
        (np.array([[np.nan, 1]]), "has values from nan to nan"),
        (np.array([[np.inf, 1]]), "has values from 1.0 to inf"),
        (np.array([[-2, 1]]), "has values from -2 to 1"),
        (np.array([[65535, 1]]), "has values from 1 to 65535"),
        (np.zeros((2, 3, 4)), r"has the shape \[2, 3, 4\]; a mask is a matrix"),
        (np.zeros((0, 3)), r"has the shape \[0, 3\]; a mask is a matrix"),
    ],
)
def test_what_is_no_mask(tmp_path, array, message):
    with pytest.raises(InputError, match=f"variable S of mask a.mat {message}"):
        read_mask_array(save_mat5(tmp_path / "a.mat", {"S": array}), "S")


def test_labels_of_a_pair(tmp_path):
    image = tmp_path / "a.png"
    save(picture(2, 4), image)
    labels = LabelMap(void=(0,), numbers=((458, 2), (65534, 1), (3, 0), (5, 0), (6, 0), (7, 0)))
    pair = read_pair([image], save_mat5(tmp_path / "a.mat", {"S": MASK.astype("u2")}), 3, labels, "S")
    assert pair.shape == (2, 4)
    assert {value: count for value, count in enumerate(pair.counts.tolist()) if count} == {0: 4, 1: 2, 2: 1, 255: 1}
    with pytest.raises(InputError, match=r"label 458 in a.mat is outside 0..2 and is not 255"):
        read_pair([image], tmp_path / "a.mat", 3, LabelMap(numbers=labels.numbers[1:]), "S")
    with pytest.raises(InputError, match=r"mask a.mat has 4x3 pixels, its image a.png 4x2"):
        read_pair([image], save_mat5(tmp_path / "a.mat", {"S": np.zeros((3, 4))}), 3, labels, "S")


def test_damaged_hdf5(tmp_path, monkeypatch):
    file = save_mat73(tmp_path / "a.mat", {"S": MASK})
    with pytest.raises(InputError, match=r"mask a.mat cannot be read .*no array of numbers 'T', but 'S'"):
        read_mask_array(file, "T")
    monkeypatch.setattr(mat_files, "MOST", 8 * MASK.size - 1)
    with pytest.raises(InputError, match=r"mask a.mat cannot be read .*/S has 8 numbers, which are more than 63 bytes"):
        read_mask_array(file, "S")
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InputError, match=r"mask a.mat cannot be read .*truncated"):
        read_mask_array(file, "S")


def test_numbers_in_another_file(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(8))
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("S", (2, 4), "u1", external=[(str(tmp_path / "secret"), 0, 8)])
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file["S"] = h5py.ExternalLink(str(tmp_path / "c.mat"), "S")
    save_mat73(tmp_path / "c.mat", {"S": MASK})
    for name in ("a", "b"):
        with pytest.raises(InputError, match="the numbers of 'S' are in another file"):
            read_mask_array(tmp_path / f"{name}.mat", "S")


# Single examples of a file that has all


@pytest.fixture
def everything(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 3, 4), np.uint8)
    labels = rng.integers(0, 895, (6, 8, 4)).astype(np.uint16)
    save_mat73(tmp_path / "all.mat", {"images": images, "labels": labels}, chunks=None)
    return tmp_path / "all.mat", images, labels


IMAGES = ((("images",), take_colour),)


def convert(array):
    return array[..., None] + 1


def test_slices(everything):
    file, images, labels = everything
    for index in range(4):
        (image, depth), mask = read_slice(file, index, "labels", (*IMAGES, (("labels",), convert)))
        np.testing.assert_array_equal(depth, labels[..., index, None] + 1)
        np.testing.assert_array_equal(image, images[..., index])
        np.testing.assert_array_equal(mask, labels[..., index])


def test_a_slice_does_not_read_the_whole(everything, monkeypatch):
    file, images, _ = everything
    monkeypatch.setattr(mat_files, "MOST", images.size // 4)
    read_slice(file, 0, "labels", IMAGES)
    monkeypatch.setattr(mat_files, "MOST", images.size // 4 - 1)
    with pytest.raises(InputError, match="/images has 144 numbers, which are more than 143 bytes"):
        read_slice(file, 0, "labels", IMAGES)


def test_slices_that_are_not_there(everything, tmp_path):
    file = everything[0]
    with pytest.raises(InputError, match=r"example 5 of all.mat cannot be read .* images and labels .*ndex"):
        read_slice(file, 4, "labels", IMAGES)
    with pytest.raises(InputError, match=r"the image is uint16 \[6, 8\], not uint8 \[height, width, 3\]"):
        read_slice(file, 0, "labels", ((("labels",), take_colour),))
    with pytest.raises(InputError, match=r"they have the sizes \(8, 6\), \(6, 8\)"):
        read_slice(file, 0, "labels", ((("images",), lambda array: array.transpose(1, 0, 2)),))
    with pytest.raises(InputError, match=r"images of example 1 of all.mat has the shape \[6, 8, 3\]"):
        read_slice(file, 0, "images", IMAGES)
