"""NYUDv2 in small, in both of its layouts."""

import numpy as np
import pytest
from drawn import picture, save
from matlab_writer import save_mat5, save_mat73

from fcn_jax.data import dataset as datasets
from fcn_jax.data.sources import nyud
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

RNG = np.random.default_rng(0)
SPLITS = {"trainNdxs": [[4], [1]], "testNdxs": [[2], [5], [3]]}
IMAGES = RNG.integers(0, 256, (6, 8, 3, 5), np.uint8)
LABELS = RNG.integers(0, 895, (6, 8, 5)).astype(np.uint16)
TO_40 = RNG.integers(1, 41, (1, 894))


def write_official(root):
    save_mat73(root / nyud.ALL, {"images": IMAGES, "labels": LABELS, "depths": LABELS.astype(np.float32)})
    save_mat5(root / nyud.SPLITS, {name: np.array(numbers, np.uint16) for name, numbers in SPLITS.items()})
    save_mat5(root / nyud.MAPPING, {"className": np.array(nyud.CLASS_NAMES, object), "mapClass": TO_40.astype(float)})


def write_reference(root):
    """Write its layout, and return the image and the label of each name."""
    examples = {}
    for split, names in (("train", ["5449", "6140"]), ("val", ["5010"]), ("test", ["5133"])):
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            image, numbers = picture(), RNG.integers(0, 41, (6, 9))
            save(image, root / f"data/images/img_{name}.png")
            save_mat5(root / f"segmentation/img_{name}.mat", {"segmentation": numbers.astype(np.uint16)})
            examples[name] = image, np.where(numbers, numbers - 1, 255)
    return examples


def test_official_files(tmp_path):
    write_official(tmp_path)
    data = datasets.prepare("nyud", tmp_path, tmp_path / "cache")
    for split, variable in (("trainval", "trainNdxs"), ("test", "testNdxs")):
        numbers = np.ravel(SPLITS[variable])
        assert [example.name for example in data.source(split)] == [str(5000 + number) for number in numbers]
        for number, example in zip(numbers, data.source(split), strict=True):
            np.testing.assert_array_equal(example.image, IMAGES[..., number - 1])
            for place, value in np.ndenumerate(LABELS[..., number - 1]):
                assert example.label[place] == (TO_40[0, value - 1] - 1 if value else 255)
    assert data.splits == {"trainval": 2, "test": 3}
    assert len(data.class_names) == 40


def test_layout_of_the_reference(tmp_path):
    examples = write_reference(tmp_path)
    data = datasets.prepare("nyud", tmp_path, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 1, "test": 1, "trainval": 3}
    assert [example.name for example in data.source("trainval")] == ["5449", "6140", "5010"]
    for split in data.splits:
        for example in data.source(split):
            np.testing.assert_array_equal(example.image, examples[example.name][0])
            np.testing.assert_array_equal(example.label, examples[example.name][1])


def test_lists_of_the_reference(tmp_path):
    """Its networks read trainval.txt and test.txt, and its repository has train.txt, val.txt and test.txt."""
    write_reference(tmp_path)
    found = nyud.find(Request(tmp_path, tmp_path)).splits
    (tmp_path / "trainval.txt").write_text("5010\n5449\n")
    assert nyud.find(Request(tmp_path, tmp_path)).splits == found
    (tmp_path / "val.txt").unlink()
    (tmp_path / "train.txt").unlink()
    splits = nyud.find(Request(tmp_path, tmp_path)).splits
    assert {split: [example.name for example in examples] for split, examples in splits.items()} == {
        "test": ["5133"],
        "trainval": ["5010", "5449"],
    }
    (tmp_path / "test.txt").unlink()
    (tmp_path / "trainval.txt").unlink()
    with pytest.raises(
        InputError, match=r"has no lists of the images of NYUDv2; give .* test.txt and trainval.txt, or"
    ):
        nyud.find(Request(tmp_path, tmp_path))


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nyud is not downloaded by this program; give --data.dir, which"):
        datasets.prepare("nyud", None, tmp_path / "cache")
    write_official(tmp_path)
    for name in (nyud.MAPPING, nyud.SPLITS, nyud.ALL):
        (tmp_path / name).unlink()
        with pytest.raises(InputError, match=rf"does not hold NYUDv2 \({name} is missing\); give --data.dir, which"):
            nyud.find(Request(tmp_path, tmp_path))


@pytest.mark.parametrize("wrong", [[[0]], [[1.5]], [[65537]], [[]], [[np.nan]]])
def test_numbers_that_are_none(tmp_path, wrong):
    write_official(tmp_path)
    save_mat5(tmp_path / nyud.SPLITS, {**SPLITS, "testNdxs": np.array(wrong)})
    with pytest.raises(InputError, match=r"variable testNdxs of .*splits.mat is not a list of whole numbers from 1 to"):
        nyud.find(Request(tmp_path, tmp_path))
    save_mat5(tmp_path / nyud.MAPPING, {"mapClass": np.array([[41]])})
    with pytest.raises(InputError, match=r"variable mapClass of .* is not a list of whole numbers from 1 to 40"):
        nyud.find(Request(tmp_path, tmp_path))


def test_examples_beyond_the_end_are_listed_or_left_out(tmp_path):
    write_official(tmp_path)
    save_mat5(tmp_path / nyud.SPLITS, {**SPLITS, "testNdxs": np.array([[2], [6]])})
    with pytest.raises(InputError, match=r"test: example 6 of nyu_depth_v2_labeled.mat cannot be read"):
        datasets.prepare("nyud", tmp_path, tmp_path / "cache")
    assert datasets.prepare("nyud", tmp_path, tmp_path / "cache", skip_bad=True).splits["test"] == 1


def test_number_of_classes():
    assert nyud.SOURCE.outline.num_classes == (len(nyud.CLASS_NAMES),) == (40,)
