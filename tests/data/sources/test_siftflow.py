"""SIFT Flow in small, with both kinds of labels and both kinds of lists."""

import numpy as np
import pytest
from drawn import picture, save
from matlab_writer import save_mat5

from fcn_jax.data import dataset as datasets
from fcn_jax.data.decoded import open_decoded
from fcn_jax.data.sources import siftflow
from fcn_jax.errors import InputError

TRAIN, TEST = ["coast_arnat59", "forest_for121"], ["coast_natu975"]
SEMANTIC = np.tile(np.arange(34), (3, 1))  # 0 is void
GEOMETRIC = np.tile(np.array([-1, 1, 2, 3] * 8 + [-1, 1]), (3, 1))


def write(root, lists):
    names = [*TRAIN, *TEST]
    for name in [*names, "highway_bost181"]:  # of this one there is no mask
        save(picture(*SEMANTIC.shape), root / "Images" / siftflow.SCENES / f"{name}.jpg")
    for name in names:
        other = {"names": np.array(["awning", "balcony"], object)}
        save_mat5(root / "SemanticLabels" / siftflow.SCENES / f"{name}.mat", {"S": SEMANTIC.astype(float), **other})
        save_mat5(root / "GeoLabels" / siftflow.SCENES / f"{name}.mat", {"S": GEOMETRIC.astype(np.int16), **other})
    if lists == "official":
        (root / "TestSet1.txt").write_text(f"{siftflow.SCENES}\\{TEST[0]}.jpg\r\n")
    else:
        (root / "trainval.txt").write_text("\n".join(TRAIN))
        (root / "test.txt").write_text("\n".join(TEST))


@pytest.mark.parametrize(("lists", "where"), [("official", "."), ("the reference's", "SiftFlowDataset")])
def test_both_kinds_of_labels(tmp_path, lists, where):
    write(tmp_path / where, lists)
    for name, first, classes in (("siftflow-semantic", SEMANTIC, 33), ("siftflow-geometric", GEOMETRIC, 3)):
        data = datasets.prepare(name, tmp_path, tmp_path / "cache")
        assert [example.name for example in data.source("train")] == TRAIN
        (example,) = data.source("val")
        assert example.name == TEST[0]
        np.testing.assert_array_equal(example.label, np.where(first > 0, first - 1, 255))
        assert len(data.class_names) == classes
    assert data.class_names == ("sky", "horizontal", "vertical")


def test_both_tasks_together(tmp_path):
    write(tmp_path, "official")
    data = datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    assert [(task.name, len(task.class_names)) for task in data.tasks] == [("semantic", 33), ("geometric", 3)]
    assert data.class_names == siftflow.SEMANTIC
    (example,) = data.source("val")
    for column, (semantic, geometric) in enumerate(zip(SEMANTIC[0], GEOMETRIC[0], strict=True)):
        expected = [number - 1 if number > 0 else 255 for number in (semantic, geometric)]
        np.testing.assert_array_equal(example.label[:, column], [expected] * 3)
    # 34 columns of 3 rows in each of two images: of each semantic number one column, 8 of each geometric one and more.
    assert data.pixels["train"][0, [0, 32, 255]].tolist() == [6, 6, 6]
    assert data.pixels["train"][1, [0, 1, 2, 255]].tolist() == [54, 48, 48, 54]


def test_numbers_of_classes():
    assert siftflow.SEMANTIC_SOURCE.outline.num_classes == (33,)
    assert siftflow.GEOMETRIC_SOURCE.outline.num_classes == (3,)
    assert siftflow.SOURCE.outline.num_classes == (33, 3)
    assert (siftflow.SEMANTIC[0], siftflow.SEMANTIC[27], siftflow.SEMANTIC[32]) == ("awning", "sky", "window")


def test_the_number_of_images():
    """The archive has 2,688 images. The lists of the reference have 2,486 and 200, without two that have no masks."""
    assert 2688 - len(siftflow.WITHOUT_MASK) == 2486 + 200
    assert "2,686 images of 256x256 with masks (2,486 train, 200 val)" in siftflow.SOURCE.size


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"siftflow is not downloaded by this program; give --data.dir, which"):
        datasets.prepare("siftflow", None, tmp_path / "cache")
    write(tmp_path, "official")
    (tmp_path / "TestSet1.txt").unlink()
    with pytest.raises(
        InputError, match=r"does not hold SIFT Flow; give --data.dir, which is the folder SiftFlowDatas"
    ):
        datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    write(tmp_path, "the reference's")
    save_mat5(tmp_path / "GeoLabels" / siftflow.SCENES / f"{TEST[0]}.mat", {"S": GEOMETRIC + 1})
    with pytest.raises(InputError, match=rf"val: label 4 in {TEST[0]}.mat is outside 0..2"):
        datasets.prepare("siftflow-geometric", tmp_path, tmp_path / "cache")


def test_everything_wrong_with_both_tasks(tmp_path):
    write(tmp_path, "official")
    semantic, geometric = (tmp_path / kind / siftflow.SCENES for kind in ("SemanticLabels", "GeoLabels"))
    save_mat5(semantic / f"{TRAIN[0]}.mat", {"S": SEMANTIC + 1})
    save_mat5(geometric / f"{TRAIN[0]}.mat", {"S": GEOMETRIC + 1})
    with pytest.raises(InputError) as caught:
        datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    assert str(caught.value).startswith("2 things are wrong with the 3 examples of siftflow:")
    (geometric / f"{TRAIN[1]}.mat").unlink()
    (tmp_path / "Images" / siftflow.SCENES / f"{TRAIN[0]}.jpg").write_bytes(b"none")
    with pytest.raises(InputError) as caught:
        datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    lines = str(caught.value).splitlines()
    assert f"train: {TRAIN[1]} has no {TRAIN[1]}.mat in {geometric}: a mask has the name of its image" in lines[1]
    assert [line.split()[1:4] for line in lines[2:]] == [
        ["image", f"{TRAIN[0]}.jpg", "cannot"],
        ["label", "34", "in"],
        ["label", "4", "in"],
    ]


def test_decoded_examples_have_both_tasks(tmp_path):
    write(tmp_path, "official")
    data = datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    for stored, decoded in zip(data.source("train"), open_decoded(data, "train"), strict=True):
        np.testing.assert_array_equal(stored.image, decoded.image)
        np.testing.assert_array_equal(stored.label, decoded.label)


def test_some_tasks_of_a_data_set(tmp_path):
    write(tmp_path, "official")
    data = datasets.prepare("siftflow", tmp_path, tmp_path / "cache")
    geometric = data.select(data.tasks[1:])
    np.testing.assert_array_equal(geometric.source("val")[0].label, data.source("val")[0].label[..., 1])
    np.testing.assert_array_equal(geometric.pixels["train"], data.pixels["train"][1:])
    assert geometric.class_names == siftflow.GEOMETRIC
    swapped = data.select(data.tasks[::-1])
    np.testing.assert_array_equal(swapped.source("val")[0].label, data.source("val")[0].label[..., ::-1])
    again = swapped.select(data.tasks[:1]).source("val")[0]
    np.testing.assert_array_equal(again.label, data.source("val")[0].label[..., 0])
    assert geometric.select(data.tasks) is None
