"""Images of the user's own: splits, class names and void labels."""

import shutil

import pytest
from drawn import mask, picture, save

from fcn_jax.data.sources.folder import find
from fcn_jax.data.sources.source import Request
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
    assert (found.class_names, found.void, found.colours) == (("ground", "tree", "water"), (7,), None)
    assert found.splits["val"] == [("d", tree / "images/val/d.png", tree / "labels/val/d.png")]
    assert [example.name for example in found.splits["train"]] == ["a", "b"]


def test_sub_folders_are_part_of_a_split(tree):
    for stem in ("berlin/a", "berlin/c", "deep/er/a"):
        save(picture(), tree / f"images/train/{stem}.png")
        save(mask(), tree / f"labels/train/{stem}.png")
    (tree / "images/train/.trash").mkdir()
    save(picture(), tree / "images/train/.trash/x.png")
    examples = look(tree).splits["train"]
    assert [example.name for example in examples] == ["a", "b", "berlin/a", "berlin/c", "deep/er/a"]
    assert examples[2][1:] == (tree / "images/train/berlin/a.png", tree / "labels/train/berlin/a.png")


def test_any_splits_in_order(tree):
    for split in ("test", "extra-1"):
        save(picture(), tree / f"images/{split}/x.png")
    save(mask(), tree / "labels/alone/x.png")
    (tree / "images/.cache").mkdir()
    assert tuple(look(tree).splits) == ("train", "val", "test", "alone", "extra-1")


def test_other_class_names(tree):
    (tree / "names.txt").write_text("\ufeffearth\ntree\nsea\n\n", encoding="utf-8")
    assert look(tree, classes=tree / "names.txt").class_names == ("earth", "tree", "sea")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 class names"),
        ("\n".join(f"c{i}" for i in range(256)), "has 256 class names"),
        ("a\n\nb\n", "line 2 of .* is ''"),
        ("a\nb\na\n", "line 3 of .* is 'a'"),
        ("caf\u00e9\ncafe\u0301\n", "line 2 of .* is 'caf\u00e9'"),
    ],
)
def test_class_names_that_are_wrong(tree, text, says):
    (tree / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        look(tree)


def test_class_names_that_cannot_be_read(tree):
    with pytest.raises(InputError, match=r"cannot be read from .*/none.txt \(.*No such file"):
        look(tree, classes=tree / "none.txt")
    with pytest.raises(InputError, match=r"cannot be read from .*/d.png \(.*codec"):
        look(tree, classes=tree / "labels/val/d.png")


@pytest.mark.parametrize("label", [2, 256, -1])
def test_void_label_that_is_a_class_or_no_label(tree, label):
    with pytest.raises(InputError, match=rf"void label {label} is not within 3\.\.255"):
        look(tree, void=(label,))


def test_no_splits(tree):
    shutil.rmtree(tree / "images")
    shutil.rmtree(tree / "labels")
    with pytest.raises(InputError, match="has no splits"):
        look(tree)


@pytest.mark.parametrize("name", ["all", "a b", "x[1]"])
def test_names_that_splits_cannot_have(tree, name):
    (tree / "images" / name).mkdir()
    with pytest.raises(InputError, match="cannot be the name of a split"):
        look(tree)
