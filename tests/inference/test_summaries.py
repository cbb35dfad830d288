"""The files about all images of a folder."""

import contextlib
import csv
import io

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs, write_results
from fcn_jax.inference.segment import Segmented, make_unlabelled
from fcn_jax.inference.summaries import write_summaries

NAMES = ("sky", "sea, deep", "sand")
GENERATOR = np.random.default_rng(0)
CLASS_MAPS = {"b": GENERATOR.integers(0, 3, (9, 11), np.uint8), "a": np.full((4, 5), 2, np.uint8)}


@pytest.fixture(params=[None, np.array([9, 255, 0], np.uint8)], ids=["indices", "values"])
def outputs(request, tmp_path) -> Outputs:
    """Both summaries, of masks with class indices, and with other values."""
    chosen = Outputs(palette(3), NAMES, values=request.param, counts=True, polygons=True)
    for name, class_map in CLASS_MAPS.items():
        image = np.zeros((*class_map.shape, 3), np.uint8)
        write_results(Segmented(make_unlabelled(name, image), class_map, 0.0, 0.0), tmp_path, chosen)
    return chosen


def test_counts_have_a_row_for_each_image_in_order(tmp_path, outputs):
    files = [tmp_path / "in" / "b.jpg", tmp_path / "in" / "a.tif"]
    write_summaries(files, tmp_path, outputs)
    with (tmp_path / "counts.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["image", *NAMES]
    assert rows[1] == ["b.jpg", *(str(int((CLASS_MAPS["b"] == label).sum())) for label in range(3))]
    assert rows[2] == ["a.tif", "0", "0", "20"]
    assert len(rows) == 3


def test_a_name_that_is_not_utf_8_is_counted(tmp_path, outputs):
    name = b"b\xdf".decode(errors="surrogateescape")
    (tmp_path / "b.png").rename(tmp_path / f"{name}.png")
    write_summaries([tmp_path / f"{name}.jpg"], tmp_path, outputs)
    assert (tmp_path / "counts.csv").read_text(encoding="utf-8").splitlines()[1].startswith(r"b\udcdf.jpg,")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of pycocotools, by NumPy
def test_pycocotools_opens_the_polygons_and_gives_the_class_maps_again(tmp_path, outputs):
    coco = pytest.importorskip("pycocotools.coco")
    write_summaries([tmp_path / "b.jpg", tmp_path / "a.tif"], tmp_path, outputs)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO(str(tmp_path / "polygons.json"))
    assert [category["name"] for category in dataset.loadCats(dataset.getCatIds())] == list(NAMES)
    images = dataset.loadImgs(dataset.getImgIds())
    assert [image["file_name"] for image in images] == ["b.jpg", "a.tif"]
    for image, class_map in zip(images, CLASS_MAPS.values(), strict=True):
        joined = np.full((image["height"], image["width"]), 255, np.uint8)
        for annotation in dataset.loadAnns(dataset.getAnnIds(imgIds=[image["id"]])):
            joined[dataset.annToMask(annotation) == 1] = annotation["category_id"] - 1
        np.testing.assert_array_equal(joined, class_map)


def test_only_wanted_summaries_are_written(tmp_path, outputs):
    write_summaries([tmp_path / "b.jpg"], tmp_path, Outputs(palette(3), NAMES))
    assert not list(tmp_path.glob("*.csv")) + list(tmp_path.glob("*.json"))


def test_a_summary_that_cannot_be_written(tmp_path, outputs):
    (tmp_path / "counts.csv").mkdir()
    with pytest.raises(InputError, match=r"counts\.csv cannot be written \(.*; make room, or give another --out"):
        write_summaries([tmp_path / "b.jpg"], tmp_path, outputs)
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_damaged_mask_is_named(tmp_path, outputs):
    mask = tmp_path / "a.png"
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a\.png cannot be read .*; remove it, and give the same command again"):
        write_summaries([tmp_path / "b.jpg", tmp_path / "a.tif"], tmp_path, outputs)


def test_a_mask_of_any_size_is_read(tmp_path, outputs, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)  # of more than twice as many Pillow raises DecompressionBombError
    write_summaries([tmp_path / "b.jpg"], tmp_path, outputs)
    assert (tmp_path / "counts.csv").exists()
