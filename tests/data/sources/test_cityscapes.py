"""Cityscapes: a small one in its official layout."""

import shutil

import numpy as np
import pytest
from drawn import picture, save

from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.cityscapes import find
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

# Number -> class, as on cityscapes-dataset.com under "Class Definitions" and in the order of the benchmark's tables.
ORDER = (
    "7 road, 8 sidewalk, 11 building, 12 wall, 13 fence, 17 pole, 19 traffic light, 20 traffic sign, 21 vegetation, "
    "22 terrain, 23 sky, 24 person, 25 rider, 26 car, 27 truck, 28 bus, 31 train, 32 motorcycle, 33 bicycle"
)


def write_example(root, split, city, number):
    name = f"{city}_{number:06}_000019"
    save(picture(2, 17), root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
    label = np.arange(34, dtype=np.uint8).reshape(2, 17)
    save(label, root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png")
    # Other masks of the official archive, which are not read.
    save(picture(2, 17), root / f"gtFine/{split}/{city}/{name}_gtFine_color.png")
    save(label.astype(np.uint16) * 1000, root / f"gtFine/{split}/{city}/{name}_gtFine_instanceIds.png")


@pytest.fixture
def tree(tmp_path):
    for split, city, number in (
        ("train", "zurich", 0),
        ("train", "aachen", 1),
        ("train", "aachen", 0),
        ("val", "lindau", 5),
        ("test", "berlin", 0),
    ):
        write_example(tmp_path / "data", split, city, number)
    return tmp_path / "data"


def test_cityscapes(tree, tmp_path):
    save(picture(2, 17), tree / "leftImg8bit/test/bonn/bonn_000003_000019_leftImg8bit.png")
    data = prepare("cityscapes", tree, tmp_path / "cache")
    assert (data.splits, data.unlabelled) == ({"train": 3, "val": 1}, {"test": 2})
    assert [file.name for file in find(Request(tree, tmp_path)).unlabelled["test"]] == [
        f"{name}_000019_leftImg8bit.png" for name in ("berlin_000000", "bonn_000003")
    ]
    names = [example.name for example in data.source("train")]
    assert names == ["aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019"]
    expected = np.full(34, 255)
    for label, words in enumerate(ORDER.split(", ")):
        number, _, name = words.partition(" ")
        expected[int(number)] = label
        assert data.class_names[label] == name
    np.testing.assert_array_equal(data.source("val")[0].label.ravel(), expected)
    assert len(data.class_names) == 19
    # The colours that the benchmark is known by.
    for name, colour in (("road", (128, 64, 128)), ("car", (0, 0, 142)), ("person", (220, 20, 60))):
        assert tuple(data.palette[data.class_names.index(name)]) == colour
    assert len({tuple(colour) for colour in data.palette.tolist()}) == 19


def test_a_missing_file_is_named(tree, tmp_path):
    (tree / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png").unlink()
    (tree / "leftImg8bit/train/zurich/zurich_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(InputError) as refused:
        prepare("cityscapes", tree, tmp_path / "cache")
    assert "image aachen_000001_000019_leftImg8bit.png has no mask aachen_000001_000019_gtFine_l" in str(refused.value)
    assert "mask zurich_000000_000019_gtFine_labelIds.png has no image zurich_000000_000019" in str(refused.value)


def test_what_is_not_there(tree, tmp_path):
    shutil.rmtree(tree / "gtFine/val")
    assert list(find(Request(tree, tmp_path)).splits) == ["train"]
    shutil.rmtree(tree / "leftImg8bit/test")
    assert find(Request(tree, tmp_path)).unlabelled == {}
    with pytest.raises(InputError, match=r"cityscapes is not downloaded .*gtFine_trainvaltest.zip .*register"):
        find(Request(None, tmp_path))
    with pytest.raises(InputError, match=r"does not hold Cityscapes; give --data.dir, which is a folder with leftImg"):
        find(Request(tree / "gtFine", tmp_path))
