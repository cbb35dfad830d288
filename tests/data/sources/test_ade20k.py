"""ADE20K: a small one in its official layout."""

import numpy as np
import pytest
from drawn import picture, save

from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.ade20k import find, read_names
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

HEAD = "Idx\tRatio\tTrain\tVal\tName\n"


def write_names(root, count=150):
    rows = [f"{i}{' ' * (i in (22, 24))}\t0.0100\t50\t5\tclass {i}, other name {i}" for i in range(1, count + 1)]
    rows[7] = "8\t0.0231\t1906\t199\tbed "  # with a blank, as in the official file
    root.mkdir(parents=True, exist_ok=True)
    (root / "objectInfo150.txt").write_text(HEAD + "\n".join(rows) + "\n")
    return root / "objectInfo150.txt"


@pytest.fixture
def tree(tmp_path):
    """Two images to train on and one to evaluate on, with every number from 0 to 150 in the first mask."""
    root = tmp_path / "data/ADEChallengeData2016"
    write_names(root)
    for folder, kind, number in (("training", "train", 1), ("training", "train", 2), ("validation", "val", 1)):
        name = f"ADE_{kind}_{number:08}"
        save(picture(4, 38), root / f"images/{folder}/{name}.jpg")
        save((np.arange(152, dtype=np.uint8) % 151).reshape(4, 38), root / f"annotations/{folder}/{name}.png")
    return root


@pytest.mark.parametrize("above", [False, True])
def test_ade20k(tree, tmp_path, above):
    data = prepare("ade20k", tree.parent if above else tree, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 1}
    name, _, label = data.source("train")[0]
    assert name == "ADE_train_00000001"
    expected = [255, *range(150), 255]  # what belongs to no class is void, and counting begins at 1
    assert label.ravel().tolist() == expected
    assert (len(data.class_names), len(data.palette)) == (150, 150)
    assert data.class_names[0] == "class 1"
    assert data.class_names[7] == "bed"


@pytest.mark.parametrize("place", ["images/testing", "release_test/testing", "../release_test/testing"])
def test_images_without_labels(tree, tmp_path, place):
    assert find(Request(tree, tmp_path)).unlabelled == {}
    for number in (2, 1):
        save(picture(4, 38), tree / place / f"ADE_test_{number:08}.jpg")
    found = find(Request(tree, tmp_path))
    assert [file.stem for file in found.unlabelled["test"]] == ["ADE_test_00000001", "ADE_test_00000002"]
    assert all(file.is_file() for file in found.unlabelled["test"])
    assert list(found.splits) == ["train", "val"]


def test_a_split_that_is_not_there(tree, tmp_path):
    (tree / "images/validation").rename(tree / "images/other")
    assert list(find(Request(tree, tmp_path)).splits) == ["train"]
    (tree / "annotations/training").rename(tree / "annotations/other")
    with pytest.raises(InputError, match=r"has no images and annotations; give --data.dir, which is the unpacked"):
        find(Request(tree, tmp_path))


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"ade20k is not downloaded .*ADEChallengeData2016.zip from sceneparsing"):
        find(Request(None, tmp_path))
    with pytest.raises(InputError, match=r"has no objectInfo150.txt; give --data.dir, which is the unpacked folder"):
        find(Request(tmp_path, tmp_path))


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "1\t0.1\t5\t5\twall\n"])
def test_a_file_of_names_that_is_cut_off(tmp_path, text):
    (tmp_path / "objectInfo150.txt").write_text(text)
    with pytest.raises(InputError, match="has not the rows 1 to 150, each with a name of its own in the last column"):
        read_names(tmp_path / "objectInfo150.txt")


def test_a_name_that_occurs_twice(tmp_path):
    file = write_names(tmp_path)
    file.write_text(file.read_text().replace("class 3,", "class 4,"))
    with pytest.raises(InputError, match="each with a name of its own"):
        read_names(file)


def test_a_file_of_names_that_is_no_text(tmp_path):
    (tmp_path / "objectInfo150.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"objectInfo150.txt cannot be read \(.*get it anew"):
        read_names(tmp_path / "objectInfo150.txt")
