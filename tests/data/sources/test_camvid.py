"""CamVid: a small one in its layouts, and the real one."""

import shutil

import numpy as np
import pytest
from drawn import picture, save
from PIL import Image

from fcn_jax.data import dataset as datasets
from fcn_jax.data.sources import camvid
from fcn_jax.data.sources.source import Request


@pytest.mark.parametrize("layout", ["folders", "SegNet", "above"])
def test_camvid(tmp_path, layout):
    for split, stem in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "0001TP_008550")):
        root = tmp_path / "data" / "CamVid" if layout == "above" else tmp_path / "data"
        images, masks = (f"images/{split}", f"labels/{split}") if layout == "folders" else (split, f"{split}annot")
        save(picture(), root / images / f"{stem}.png")
        label = save(np.tile(np.arange(12, dtype=np.uint8), (6, 1))[:, 3:], root / masks / f"{stem}.png")
    data = datasets.prepare("camvid", tmp_path / "data", tmp_path / "cache")
    assert data.splits == {"train": 1, "val": 1, "test": 1}
    np.testing.assert_array_equal(data.source("test")[0].label, np.where(label == 11, 255, label))
    assert " ".join(data.class_names) == "sky building pole road pavement tree sign fence car pedestrian bicyclist"
    np.testing.assert_array_equal(data.palette[[0, 10]], [[128, 128, 128], [0, 128, 192]])
    shutil.rmtree(root / images)
    assert list(datasets.prepare("camvid", tmp_path / "data", tmp_path / "cache").splits) == ["train", "val"]


def test_real_folders_are_listed_completely(camvid_dir, tmp_path):
    found = camvid.find(Request(camvid_dir, tmp_path))
    assert {split: len(examples) for split, examples in found.splits.items()} == {"train": 367, "val": 101}


def test_real_camvid(camvid_dir, tmp_path):
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (tmp_path / "camvid" / kind / split).mkdir(parents=True)
            for file in sorted((camvid_dir / kind / split).iterdir())[:20]:
                (tmp_path / "camvid" / kind / split / file.name).symlink_to(file)
    data = datasets.prepare("camvid", tmp_path / "camvid", tmp_path / "cache")
    assert (data.splits, data.max_size) == ({"train": 20, "val": 20}, (360, 480))
    for name, image, label in data.source("val"):
        (image_file,) = (camvid_dir / "images/val").glob(f"{name}.*")
        np.testing.assert_array_equal(image, np.asarray(Image.open(image_file)))
        truth = np.asarray(Image.open(camvid_dir / f"labels/val/{name}.png"))
        np.testing.assert_array_equal(label, np.where(truth == 11, 255, truth))
    assert data.pixels["val"][11:255].sum() == 0
