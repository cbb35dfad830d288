"""Images of the user's own: splits, class names and void labels."""

import shutil

import numpy as np
import pytest
from drawn import mask, picture, save

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.folder import find
from fcn_jax.data.sources.source import Files, Request
from fcn_jax.errors import InputError


@pytest.fixture
def tree(tmp_path):
    for split, stem in (("train", "a"), ("train", "b"), ("val", "d")):
        save(picture(), tmp_path / f"images/{split}/{stem}.png")
        save(mask(), tmp_path / f"labels/{split}/{stem}.png")
    (tmp_path / "classes.txt").write_text("ground\ntree\nwater\n")
    return tmp_path


def look(tree, **options):
    return find(Request(tree, tree / "cache", **options))


def test_what_is_found(tree):
    found = look(tree, void=(7,))
    assert (found.class_names, found.label_map, found.colours) == (("ground", "tree", "water"), LabelMap((7,)), None)
    assert found.splits["val"] == [Files("d", tree / "images/val/d.png", tree / "labels/val/d.png")]
    assert [example.name for example in found.splits["train"]] == ["a", "b"]


def test_sub_folders_are_part_of_a_split(tree):
    for stem in ("berlin/a", "berlin/c", "deep/er/a"):
        save(picture(), tree / f"images/train/{stem}.png")
        save(mask(), tree / f"labels/train/{stem}.png")
    (tree / "images/train/.trash").mkdir()
    save(picture(), tree / "images/train/.trash/x.png")
    examples = look(tree).splits["train"]
    assert [example.name for example in examples] == ["a", "b", "berlin/a", "berlin/c", "deep/er/a"]
    assert examples[2][1:3] == (tree / "images/train/berlin/a.png", tree / "labels/train/berlin/a.png")


def test_any_splits_in_order(tree):
    for split in ("test", "extra-1", "alone"):
        save(picture(), tree / f"images/{split}/x.png")
        save(mask(), tree / f"labels/{split}/x.png")
    (tree / "images/.cache").mkdir()
    (tree / "labels/.cache").mkdir()
    found = look(tree)
    assert tuple(found.splits) == ("train", "val", "test", "alone", "extra-1")
    assert found.unlabelled == {}


def test_splits_of_images_alone_have_no_labels(tree, capsys):
    for name in ("test/b.jpg", "test/deep/a.png", "test/a.png", "own/x.png"):
        save(picture(), tree / "images" / name)
    (tree / "images/test/notes.txt").touch()
    (tree / "images/empty").mkdir()
    found = look(tree)
    assert tuple(found.splits) == ("train", "val")
    test = [tree / "images/test" / name for name in ("a.png", "b.jpg", "deep/a.png")]
    assert list(found.unlabelled.items()) == [("test", test), ("own", [tree / "images/own/x.png"])]
    assert capsys.readouterr().err == ""


def test_a_split_of_masks_alone_is_named(tree, capsys):
    (tree / "images/val").rename(tree / "images/valid")
    found = look(tree)
    assert (tuple(found.splits), tuple(found.unlabelled)) == (("train",), ("valid",))
    assert capsys.readouterr().err == "warning: labels/val is not used, because there is no images/val\n"


def test_arrays_without_labels_are_images_of_the_input_bands(tree, tmp_path):
    """A scene of several channels in a .npy file, as those to train on may be."""
    place = tree / "images/scenes"
    place.mkdir()
    np.save(place / "b.npy", np.zeros((3, 4, 5), np.uint16))
    save(picture(), place / "a.png")
    (place / "notes.txt").touch()
    found = find(Request(tree, tmp_path, inputs=("bands",)))
    assert found.unlabelled["scenes"] == [place / "a.png", place / "b.npy"]
    assert find(Request(tree, tmp_path)).unlabelled["scenes"] == [place / "a.png"]


def test_arrays_without_masks_are_images_that_lack_them(tree, tmp_path, capsys):
    np.save(tree / "images/train/e.npy", np.zeros((3, 4, 5), np.uint16))
    found = find(Request(tree, tmp_path, inputs=("bands",)))
    assert [example.name for example in found.splits["train"]] == ["a", "b", "e"]
    assert found.splits["train"][-1].mask == tree / "labels/train/e.png"
    assert capsys.readouterr().err == ""
    assert [example.name for example in look(tree).splits["train"]] == ["a", "b"]
    assert "left out are 1 file" in capsys.readouterr().err


def test_masks_with_a_suffix(tree):
    save(mask(), tree / "labels/train/a_mask.png")
    (tree / "labels/train/a.png").rename(tree / "labels/train/c.png")
    first, second = look(tree, label_suffix="_mask").splits["train"]
    assert (first.name, first.mask) == ("a", tree / "labels/train/a_mask.png")
    assert (second.name, second.mask) == ("b", tree / "labels/train/b_mask.png")


def test_other_class_names(tree):
    (tree / "names.txt").write_text("\ufeffearth\ntree\nsea\n\n", encoding="utf-8")
    assert look(tree, classes=tree / "names.txt").class_names == ("earth", "tree", "sea")


@pytest.mark.parametrize("label", [2, 256, -1])
def test_void_label_that_is_a_class_or_no_label(tree, label):
    with pytest.raises(InputError, match=rf"void label {label} is not within 3\.\.255"):
        look(tree, void=(label,))


def test_no_splits(tree):
    shutil.rmtree(tree / "images")
    shutil.rmtree(tree / "labels")
    with pytest.raises(InputError, match="has no split with images; it should be a folder"):
        look(tree)


@pytest.mark.parametrize("name", ["all", "a b", "x[1]"])
def test_names_that_splits_cannot_have(tree, name):
    (tree / "images" / name).mkdir()
    with pytest.raises(InputError, match="cannot be the name of a split"):
        look(tree)
