"""Data sets without their files: what is said of them is what their files have."""

from pathlib import Path

import pytest
from PIL import Image

from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.data.outline import outline_dataset
from fcn_jax.data.sources import SOURCES
from fcn_jax.presets import PRESETS

NUM_CLASSES = {
    "voc2012": 21,
    "sbd": 21,
    "pascal-context": 60,
    "siftflow": 33,
    "siftflow-semantic": 33,
    "siftflow-geometric": 3,
    "nyud": 40,
    "camvid": 11,
    "cityscapes": 19,
}


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_an_outline_has_the_classes_and_no_example(name):
    outline = outline_dataset(DataConfig(name), DataOptions())
    assert outline is not None
    assert len(outline.class_names) == len(outline.palette) == NUM_CLASSES[name]
    for split in outline.splits:
        assert len(outline.source(split)) == 0
        assert (outline.pixels[split] > 0).all()


def test_what_has_no_outline():
    assert {name for name in SOURCES if outline_dataset(DataConfig(name), DataOptions())} == set(NUM_CLASSES)
    assert outline_dataset(DataConfig("voc2012"), DataOptions(dir=Path())) is None


def test_the_splits():
    outline = outline_dataset(DataConfig("nyud", hold_out=0.1), DataOptions())
    assert list(outline.splits) == ["trainval", "test", "train", "val", "held-out"]
    assert list(outline_dataset(DataConfig("voc2012"), DataOptions()).splits) == [
        "train", "val", "trainaug", "seg11valid"
    ]  # fmt: skip


def test_a_recipe_has_all_splits_in_its_outline():
    for preset in PRESETS.values():
        if outline := outline_dataset(preset.config.data, DataOptions()):
            assert preset.config.data.train_split in outline.splits
            assert (preset.options.data.val_split or "val") in outline.splits


@pytest.mark.parametrize(("name", "images"), [("voc2012", "VOC2012/JPEGImages/*.jpg"), ("camvid", "images/*/*.jpg")])
def test_the_sizes_of_the_files(name, images, request):
    folder = request.getfixturevalue({"voc2012": "voc_dir", "camvid": "camvid_dir"}[name])
    sizes = []
    for file in folder.glob(images):
        with Image.open(file) as image:
            sizes.append(image.size)
    widths, heights = zip(*sizes, strict=True)
    assert (max(heights), max(widths)) == SOURCES[name].outline.max_size
