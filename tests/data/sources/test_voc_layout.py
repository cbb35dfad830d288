"""Images of the user's own in the layout of PASCAL VOC."""

import numpy as np
import pytest
from drawn import mask, picture, save

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.source import Files, Request
from fcn_jax.data.sources.voc_layout import find
from fcn_jax.errors import InputError

COLOURS = ((0, 0, 0), (250, 50, 83), (51, 221, 255))


@pytest.fixture
def tree(tmp_path):
    """An export of CVAT: masks in the colours of labelmap.txt, and a list of each split."""
    root = tmp_path / "export"
    for stem in ("a", "b.1", "c"):
        save(picture(), root / f"JPEGImages/{stem}.jpg")
        save(np.array(COLOURS, np.uint8)[mask() % 3], root / f"SegmentationClass/{stem}.png")
    lines = [
        f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(("ground", "cat", "dog"), COLOURS, strict=True)
    ]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    for split, text in (("train", "a\nb.1\n"), ("val", "c\n")):
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(text)
    return root


def look(tree, **options):
    return find(Request(tree, tree.parent / "cache", **options))


def test_an_export_of_cvat(tree):
    found = look(tree)
    assert found.class_names == ("ground", "cat", "dog")
    assert found.colours == COLOURS
    assert found.label_map == LabelMap(colours=tuple(zip(COLOURS, range(3), strict=True)))
    assert {split: [e.name for e in examples] for split, examples in found.splits.items()} == {
        "train": ["a", "b.1"],
        "val": ["c"],
    }


def test_a_name_that_is_not_there_is_not_replaced_by_another(tree):
    """Blanks belong to a name. Only the numbers of VOC's lists of a class do not."""
    (tree / "ImageSets/Segmentation/train.txt").write_text("a (2)\nb.1  -1\nc 1\na\n")
    missing, *others = look(tree).splits["train"]
    assert missing.name == "a (2)"
    assert missing.image == tree / "JPEGImages/a (2).jpg"
    assert missing.mask == tree / "SegmentationClass/a (2).png"
    assert [example.name for example in others] == ["b.1", "c", "a"]


def test_paths_in_lists(tree):
    (tree / "SegmentationClass").rename(tree / "SegmentationClassAug")
    (tree / "SegmentationClass").mkdir()
    (tree / "ImageSets/Segmentation/train.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    assert look(tree).splits["train"] == [Files("a", tree / "JPEGImages/a.jpg", tree / "SegmentationClassAug/a.png")]


def test_names_in_another_unicode_form(tree):
    save(picture(), tree / "JPEGImages/caf\u00e9.jpg")
    save(mask(), tree / "SegmentationClass/cafe\u0301.png")
    (tree / "ImageSets/Segmentation/train.txt").write_text("cafe\u0301\n", encoding="utf-8")
    (example,) = look(tree).splits["train"]
    assert (example.image.exists(), example.mask.exists()) == (True, True)


def test_other_pictures_and_names_that_are_not_there(tree):
    (tree / "JPEGImages/a.jpg").unlink()
    save(picture(), tree / "JPEGImages/a.png")
    (tree / "ImageSets/Segmentation/train.txt").write_text("a\nz\n")
    first, second = look(tree).splits["train"]
    assert first.image == tree / "JPEGImages/a.png"
    assert (second.image, second.mask) == (tree / "JPEGImages/z.jpg", tree / "SegmentationClass/z.png")


def test_an_export_of_labelme_without_lists(tmp_path):
    save(picture(), tmp_path / "JPEGImages/a.jpg")
    save(mask(), tmp_path / "SegmentationClassPNG/a.png")
    (tmp_path / "SegmentationClass").mkdir()
    np.save(tmp_path / "SegmentationClass/a.npy", mask())
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    found = look(tmp_path)
    assert (found.class_names, found.colours) == (("_background_", "cat", "dog"), None)
    assert found.splits["train"] == [Files("a", tmp_path / "JPEGImages/a.jpg", tmp_path / "SegmentationClassPNG/a.png")]


def test_names_with_blanks_and_words_behind_names(tree):
    save(picture(), tree / "JPEGImages/my dog.jpg")
    save(mask(), tree / "SegmentationClass/my dog.png")
    (tree / "ImageSets/Segmentation/train.txt").write_text("my dog\na -1\n")
    assert [example.name for example in look(tree).splits["train"]] == ["my dog", "a"]


def test_two_images_of_one_name_are_both_listed(tree):
    save(picture(), tree / "JPEGImages/c.png")
    assert [example.image.name for example in look(tree).splits["val"]] == ["c.jpg", "c.png"]


def test_what_is_not_there(tree):
    with pytest.raises(InputError, match="voc is not downloaded"):
        find(Request(None, tree))
    with pytest.raises(InputError, match=r"has not the layout of PASCAL VOC; give --data.dir"):
        look(tree / "JPEGImages")
    (tree / "labelmap.txt").rename(tree / "names.txt")
    with pytest.raises(InputError, match=r"does not name its classes; give --data.classes"):
        look(tree)
    assert look(tree, classes=tree / "names.txt").class_names == ("ground", "cat", "dog")
    (tree / "ImageSets/Segmentation/all.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"'all' in .* cannot be the name of a split"):
        look(tree, classes=tree / "names.txt")
