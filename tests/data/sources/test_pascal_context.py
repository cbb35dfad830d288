"""PASCAL-Context in small."""

import numpy as np
import pytest
from drawn import picture, save
from matlab_writer import save_mat5

from fcn_jax.data import dataset as datasets
from fcn_jax.data.sources import pascal_context
from fcn_jax.errors import InputError

# A few lines of labels.txt, the data set's table of the 459 numbers.
NUMBERS = {2: "aeroplane", 397: "table", 80: "cloth", 19: "bedclothes", 427: "tvmonitor", 360: "sky", 458: "wood"}
OTHERS = (0, 1, 3, 459)  # unlabelled, accordion, air conditioner, yarn: no class of the 59
NAMES = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000006"]}
MASK = np.array([[*NUMBERS, *OTHERS]] * 4, np.uint16)


def write(root, voc, masks):
    for split, names in NAMES.items():
        file = root / voc / f"ImageSets/Main/{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(names) + "\n")
        for name in names:
            save(picture(*MASK.shape), root / voc / f"JPEGImages/{name}.jpg")
            save_mat5(root / masks / f"{name}.mat", {"LabelMap": MASK})


@pytest.mark.parametrize(
    ("voc", "masks"), [("VOC2010", "trainval"), ("VOCdevkit/VOC2010", "pascal-context/trainval"), (".", "trainval")]
)
def test_classes_are_found_by_name(tmp_path, voc, masks):
    write(tmp_path, voc, masks)
    data = datasets.prepare("pascal-context", tmp_path, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 1}
    renamed = {"table": "diningtable", "cloth": "clothes", "bedclothes": "bedcloth"}
    names = [data.class_names[label] for label in data.source("val")[0].label[0]]
    assert names == [renamed.get(name, name) for name in NUMBERS.values()] + ["background"] * len(OTHERS)
    assert (len(data.class_names), data.class_names[1], data.class_names[59]) == (60, "aeroplane", "wood")


def test_table():
    numbers = list(pascal_context.CLASSES.values())
    assert len(set(numbers)) == 59
    assert min(numbers) > 0
    assert max(numbers) <= pascal_context.LABELS == 459
    assert pascal_context.SOURCE.outline.num_classes == (len(pascal_context.CLASS_NAMES),) == (60,)


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"pascal-context is not downloaded by this program; give --data.dir, which"):
        datasets.prepare("pascal-context", None, tmp_path / "cache")
    with pytest.raises(InputError, match=r"does not hold VOC 2010 \(ImageSets/Main/train.txt\); give --data.dir"):
        datasets.prepare("pascal-context", tmp_path, tmp_path / "cache")
    write(tmp_path, "VOC2010", "elsewhere")
    with pytest.raises(InputError, match=r"does not hold the masks of PASCAL-Context \(trainval\); give --data.dir"):
        datasets.prepare("pascal-context", tmp_path, tmp_path / "cache")
    (tmp_path / "elsewhere").rename(tmp_path / "trainval")
    save_mat5(tmp_path / "trainval/2008_000006.mat", {"LabelMap": MASK + 1})
    with pytest.raises(InputError, match=r"val: label 460 in 2008_000006.mat is outside 0..59"):
        datasets.prepare("pascal-context", tmp_path, tmp_path / "cache")
