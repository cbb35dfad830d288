"""Lists of examples: what is wrong with them, and their hashes."""

import dataclasses
import os

import numpy as np
import pytest

from fcn_jax.data.entries import hash_contents, hash_source, list_entries, list_problems
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.nyud import take_colour
from fcn_jax.data.sources.source import Drawn, Files, Found, Outlined, Slice


def make_source(root, times=(0, 1, 2, 3)):
    """A data set of two examples, whose files have 10 to 13 bytes and these times."""
    files = [root / name for name in ("images/a.jpg", "labels/a.png", "images/b.png", "labels/b.png")]
    for file, size, time in zip(files, range(10, 14), times, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
        os.utime(file, ns=(0, 1_700_000_000_000_000_000 + time))
    return Found(
        ("ground", "tree"), {"train": [Files("a", *files[:2])], "val": [Files("b", *files[2:])]}, LabelMap(void=(9,))
    )


def test_hashes_of_earlier_releases(tmp_path):
    """Prepared data of an earlier release is found again only if its folder has the same name."""
    found = make_source(tmp_path)
    entries = list_entries(found)
    assert hash_contents(found, entries) == "36742e02e3b3c3d8"
    assert hash_source(found, entries) == "651a7368dc0e0674"


def test_another_map_of_labels_changes_both_hashes(tmp_path):
    found = make_source(tmp_path)
    entries = list_entries(found)
    maps = [
        LabelMap((9,)),
        LabelMap((8,)),
        LabelMap((9,), ((255, 1),)),
        LabelMap((9,), ((255, 0),)),
        LabelMap((9,), (), (((1, 2, 3), 1),)),
        LabelMap((9,), (), (((1, 2, 4), 1),)),
    ]
    for compute in (hash_source, hash_contents):
        hashes = [compute(dataclasses.replace(found, label_map=label_map), entries) for label_map in maps]
        assert len(set(hashes)) == len(maps)
        assert hashes[0] == compute(found, entries)


def test_a_new_time_changes_the_source_and_not_the_contents(tmp_path):
    before, after = make_source(tmp_path / "one"), make_source(tmp_path / "two", times=(0, 1, 2, 4))
    assert hash_contents(before, list_entries(before)) == hash_contents(after, list_entries(after))
    assert hash_source(before, list_entries(before)) != hash_source(after, list_entries(after))


def test_what_is_drawn_changes_both_hashes():
    def hashes(value):
        def draw():
            return np.full((2, 2, 3), value, np.uint8), np.zeros((2, 2), np.uint8)

        found = Found(("a",), {"train": [Drawn("one", draw)]})
        return hash_contents(found, list_entries(found)), hash_source(found, list_entries(found))

    assert hashes(1) == hashes(1)
    assert not set(hashes(1)) & set(hashes(2))


def test_a_missing_file_has_no_size(tmp_path):
    found = make_source(tmp_path)
    (tmp_path / "labels/a.png").unlink()
    assert [[name for name, _, _ in entry.stats] for entry in list_entries(found)] == [["a.jpg"], ["b.png", "b.png"]]


def test_problems(tmp_path):
    file = tmp_path / "x"
    file.touch()
    one, two = Files("a", file, file), Files("b", file, file)
    found = Found(("x",), {"train": [one, two, one], "val": [one], "test": []})
    twice, empty = list_problems(list_entries(found), found.splits)
    assert empty.startswith("test: the split has no examples")
    assert twice.startswith("train: there are 2 examples 'a'")
    assert list_problems(list_entries(found)[1:4], ["train", "val"]) == []


def list_lone(tmp_path, images, masks):
    for name in (*images, *masks):
        (tmp_path / name).touch()
    examples = [Files(name.split(".")[0], tmp_path / name, tmp_path / "gone.png") for name in images]
    examples += [Files(name.removesuffix(".png"), tmp_path / "gone.jpg", tmp_path / name) for name in masks]
    found = Found(("x",), {"train": examples})
    return list_problems(list_entries(found), found.splits)


def test_a_file_that_is_not_there(tmp_path):
    (line,) = list_lone(tmp_path, ["a.jpg"], [])
    assert line == (
        f"train: image a.jpg has no mask gone.png in {tmp_path}: a mask has the name of its image, without the "
        "extension; add the missing file, or remove its partner"
    )


@pytest.mark.parametrize(
    ("masks", "suffix"),
    [
        (["a_mask.png", "ab_mask.png", "b_mask.png"], "_mask"),
        (["a_L.png", "ab_L.png", "b_old.png"], "_L"),
        (["a.jpg.png", "ab.jpg.png"], ".jpg"),
    ],
)
def test_a_suffix_is_found(tmp_path, masks, suffix):
    first, *lines = list_lone(tmp_path, ["a.jpg", "ab.jpg", "b.jpg"], masks)
    assert first.startswith("train: image a.jpg has no mask gone.png in ")
    assert f" (3 images without mask, {len(masks)} masks without image): a mask has the name" in first
    assert first.endswith(f"give --data.label-suffix={suffix}")
    assert len(lines) == 2 + len(masks)


def test_no_suffix_is_found(tmp_path):
    first, *_ = list_lone(tmp_path, ["a.jpg", "b.jpg"], ["c_mask.png"])
    assert first.endswith("add the missing file, or remove its partner")


def test_a_file_of_all_examples(tmp_path):
    """Its bytes count once in all, and its time is part of the hash."""
    file = tmp_path / "all.mat"
    file.write_bytes(bytes(100))
    found = Found(
        ("a",), {"train": [Slice(str(i), file, i, "labels", 4, ((("images",), take_colour),)) for i in range(4)]}
    )
    entries = list_entries(found)
    assert [entry.size for entry in entries] == [25] * 4
    assert all(entry.is_complete for entry in entries)
    os.utime(file, ns=(0, 1))
    assert hash_source(found, list_entries(found)) != hash_source(found, entries)
    assert hash_contents(found, list_entries(found)) == hash_contents(found, entries)
    file.unlink()
    assert not any(entry.is_complete for entry in list_entries(found))


def make_outlined(root):
    """Two examples of which one file has the outlines, and each has a mask of numbers."""
    for size, name in enumerate(("a.jpg", "b.jpg", "a.png", "b.png"), 10):
        (root / name).write_bytes(bytes(size))
    (root / "train.json").write_bytes(bytes(1 << 20))
    examples = [
        Outlined(
            name, root / f"{name}.jpg", root / "train.json", (1, 1), lambda: np.zeros((1, 1)), root / f"{name}.png"
        )
        for name in "ab"
    ]
    return Found(("x",), {"train": examples})


def test_a_file_of_the_outlines_of_all_examples(tmp_path):
    """Its bytes are not those of an example: shards would else have one example each."""
    found = make_outlined(tmp_path)
    entries = list_entries(found)
    assert [entry.size for entry in entries] == [10 + 12, 11 + 13]
    assert all(entry.is_complete for entry in entries)
    for name in ("train.json", "b.png", "a.jpg"):
        before = hash_source(found, list_entries(found))
        os.utime(tmp_path / name, ns=(0, 1))
        assert hash_source(found, list_entries(found)) != before


def test_an_image_and_a_mask_beside_outlines_that_are_not_there(tmp_path):
    found = make_outlined(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.png").unlink()
    rest = f"which is not in {tmp_path}; add the"
    assert list_problems(list_entries(found), found.splits) == [
        f"train: train.json lists the image a.jpg, {rest} image, or remove it from that file",
        f"train: train.json needs the mask b.png, {rest} mask, or remove it from that file",
    ]
