"""Splits and places of images in COCO's formats; the layouts of tools are in test_coco.py and test_panoptic.py."""

from pathlib import Path, PurePosixPath

import pytest

from fcn_jax.data.sources.coco_images import find_file, key_by_split, list_folders, name_example
from fcn_jax.errors import InputError


def test_splits_are_renamed_and_ordered():
    names = ("tiny", "test", "val2017", "all-2", "train2014")
    files = {name: Path(f"{name}.json") for name in names}
    found = key_by_split(files.items(), Path("data"))
    assert list(found.items()) == [
        ("train", files["train2014"]),
        ("val", files["val2017"]),
        ("test", files["test"]),
        ("tiny", files["tiny"]),
        ("all-2", files["all-2"]),
    ]
    with pytest.raises(InputError, match=r"a.json and b.json are both of the split val; move one of them away"):
        key_by_split([("val", Path("a.json")), ("valid", Path("b.json"))], Path("data"))
    with pytest.raises(InputError, match=r"'all' in data cannot be the name of a split"):
        key_by_split([("all", Path("a.json"))], Path("data"))


def test_folders_of_images():
    folders = list_folders(Path("d"), Path("d/annotations/x.json"), ("val2017", "val", "val"))
    assert list(map(str, folders)) == [
        "d/annotations", "d", "d/images", "d/val2017", "d/images/val2017", "d/val", "d/images/val",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "place", "name"),
    [
        ("a.jpg", "two/a.jpg", "a"),
        ("deep/a.jpg", "one/deep/a.jpg", "deep/a"),
        ("deeper/a.jpg", "two/a.jpg", "deeper/a"),
        ("/home/me/a.jpg", "two/a.jpg", "a"),
        ("../deep/a.jpg", "two/a.jpg", "a"),
        ("C:/me/a.jpg", "two/a.jpg", "a"),
        ("b.jpg", "one/b.jpg", "b"),  # which is not there
    ],
)
def test_a_file_is_found_by_its_path_or_its_name(tmp_path, path, place, name):
    for file in ("one/deep/a.jpg", "two/a.jpg"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert find_file(PurePosixPath(path), [tmp_path / "one", tmp_path / "two"]) == tmp_path / place
    assert name_example(PurePosixPath(path)) == name
