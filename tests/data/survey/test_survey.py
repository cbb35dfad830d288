"""A survey of a small data set, against loops over its arrays."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_scenes import NAMES as NAMES_OF_SCENES
from drawn_scenes import TESTED, draw_scene, write_scenes
from PIL import Image

from fcn_jax.data.dataset import Dataset, prepare
from fcn_jax.data.sources.siftflow import GEOMETRIC
from fcn_jax.data.survey.repeats import find_repeats
from fcn_jax.data.survey.survey import Survey, survey_dataset, to_values
from fcn_jax.data.survey.text import describe_class_weights, describe_repeats, describe_split
from fcn_jax.runtime.json_values import to_json

SIZES = {"train": [(20, 30), (40, 50), (20, 30), (24, 24), (30, 20)], "val": [(20, 30), (40, 50), (16, 16)]}
NAMES = ("ground", "tree", "water", "sky")


def draw(index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Class 0 everywhere, 1 in all but every third image, 2 in some; class 3 in none; void between 0 and 1."""
    generator = np.random.default_rng(index)
    label = np.zeros(size, np.uint8)
    if index % 3:
        label[:, 8:] = 1
        label[:, 7:9] = 255
    if index in (1, 7):
        label[2:6, 2:4] = 2
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)), label


@pytest.fixture(scope="module")
def examples() -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Images by split and name. In val, `twin` has the pixels of train's t1, and `like` nearly those of t3."""
    found = {
        "train": {f"t{i}": draw(i, size) for i, size in enumerate(SIZES["train"])},
        "val": {f"v{i}": draw(5 + i, size) for i, size in enumerate(SIZES["val"])},
    }
    image, label = found["train"]["t1"]
    found["val"]["twin"] = image, np.zeros_like(label)
    image, label = found["train"]["t3"]
    found["val"]["like"] = np.clip(image.astype(int) + 2, 0, 255).astype(np.uint8), label
    found["train"]["t9"] = found["train"]["t4"]
    return found


@pytest.fixture(scope="module")
def dataset(examples, tmp_path_factory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("survey")
    for split, members in examples.items():
        for name, arrays in members.items():
            for kind, array in zip(("images", "labels"), arrays, strict=True):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / kind / split / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return prepare("folder", folder, folder / "cache")


@pytest.fixture(scope="module")
def survey(dataset) -> Survey:
    return survey_dataset(dataset, "train")


def test_counts_and_sizes(examples, survey):
    for split, members in examples.items():
        labels = [label for _, label in members.values()]
        pixels, images = {}, {}
        for value in (0, 1, 2, 3, 255):
            count = sum(int((label == value).sum()) for label in labels)
            if count:
                pixels[value] = count
                images[value] = sum(bool((label == value).any()) for label in labels)
        members = survey.splits[split]
        assert len(members.images) == len(labels)
        sizes = sorted((label.shape for label in labels), key=np.prod)
        assert (members.sizes.smallest, members.sizes.largest) == (sizes[0], sizes[-1])
        assert np.prod(members.sizes.median) == np.quantile([np.prod(size) for size in sizes], 0.5, method="lower")
        assert members.sizes.distinct == len(set(sizes))
        found = survey.tasks[0].splits[split]
        assert found.pixels == pixels
        assert found.images_with == images
        assert found.borders.void == pixels[255]
        assert found.borders.void == found.borders.near  # all of it lies between 0 and 1


def test_class_weights_are_roots_of_the_median_frequency_over_that_of_the_class(examples, survey):
    labels = [label for _, label in examples["train"].values()]
    frequencies = []
    for value in range(3):
        having = [label for label in labels if (label == value).any()]
        frequencies.append(sum((label == value).sum() for label in having) / sum((x != 255).sum() for x in having))
    expected = [*(np.sqrt(np.median(frequencies) / f) for f in frequencies), 1.0]
    np.testing.assert_allclose(survey.tasks[0].class_weights, expected, rtol=1e-12)
    assert expected[2] > 2 * expected[1]
    head, flag = describe_class_weights(survey)
    assert "train" in head
    name, *weights = flag.split()
    assert name == "--optim.class-weights"
    np.testing.assert_allclose([float(weight) for weight in weights], expected, rtol=5e-3)


def test_weights_are_from_the_first_split_if_there_is_none_to_train_on(dataset):
    assert survey_dataset(dataset, "val").weights_from == "val"
    assert survey_dataset(dataset, "default").weights_from == "train"


def test_weights_of_a_data_set_of_void_are_one(tmp_path):
    for kind, array in (("images", np.zeros((4, 4, 3), np.uint8)), ("labels", np.full((4, 4), 255, np.uint8))):
        (tmp_path / kind / "train").mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / kind / "train" / "a.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    found = survey_dataset(prepare("folder", tmp_path, tmp_path / "cache"), "train")
    assert found.tasks[0].class_weights == (1.0, 1.0)
    (line,) = [line for line in describe_split(found, "train") if "borders" in line or "void:" in line]
    assert line == "  void: 100.0 % of the pixels; 0 % of it within 3 pixels of a border between classes"
    assert to_json(to_values(found))["splits"]["train"]["void"]["share_of_borders_covered"] is None


def test_repeated_images(survey):
    found = [
        (r.kind, r.split, r.other, r.spoils_scores, [(pair.image.name, pair.other.name) for pair in r.pairs])
        for r in survey.repeats
    ]
    assert found == [
        ("equal", "val", "train", True, [("twin", "t1")]),
        ("equal", "train", "train", False, [("t9", "t4")]),
        ("alike", "val", "train", True, [("like", "t3")]),
    ]
    assert describe_repeats(survey) == [
        "warning: 1 image of val is the same as images of train: twin = t1; 1 of these with another label",
        "1 image of train is the same as others of train: t9 = t4",
        "warning: 1 image of val is nearly the same as images of train: like ~ t3",
    ]


def test_two_splits_to_train_on_or_to_score_on_share_images_without_a_warning(survey):
    train = survey.splits["train"].images
    copies = {
        split: [dataclasses.replace(image, split=split) for image in train[:4]]
        for split in ("mine", "trainaug", "test")
    }
    found = find_repeats({"train": train[:4], **copies}, "mine")
    assert {(r.split, r.other): r.spoils_scores for r in found} == {
        ("train", "mine"): False,
        ("train", "trainaug"): False,
        ("mine", "trainaug"): False,
        ("test", "train"): True,
        ("test", "mine"): True,
        ("test", "trainaug"): True,
    }
    assert all(r.kind == "equal" and len(r.pairs) == 4 for r in found)


def test_nothing_repeated(survey):
    assert find_repeats({"val": survey.splits["val"].images}, "train") == []
    assert describe_repeats(dataclasses.replace(survey, repeats=[])) == ["no image occurs twice, and no two look alike"]


def test_text_of_a_split(survey):
    found = survey.tasks[0].splits["train"]
    sizes, head, *rows = describe_split(survey, "train")
    assert head.split() == ["pixels", "share", "images"]
    assert [row.split()[:2] for row in rows[:4]] == [["0", "ground"], ["1", "tree"], ["2", "water"], ["255", "void"]]
    total = sum(found.pixels.values())
    assert rows[0].split()[2:] == [
        f"{found.pixels[0]:,}", f"{100 * found.pixels[0] / total:.2f}", "%", str(found.images_with[0])
    ]  # fmt: skip
    assert sizes == "  width x height: 24x24 (smallest), 30x20 (median), 50x40 (largest); 4 sizes"
    assert max(map(len, [sizes, head, *rows])) <= 100


def test_values_for_json(survey):
    values = json.loads(json.dumps(to_json(to_values(survey))))
    assert values["class_names"] == list(NAMES)
    train = values["splits"]["train"]
    assert train["images"] == 6
    assert [row["name"] for row in train["labels"]] == ["ground", "tree", "water", "void"]
    assert sum(row["share"] for row in train["labels"]) == pytest.approx(1)
    assert train["sizes"] == {"smallest": [24, 24], "median": [20, 30], "largest": [40, 50], "distinct": 4}
    assert train["void"]["share_within_3_pixels_of_borders"] == 1
    assert train["void"]["share_of_borders_covered"] > 0.5
    assert values["class_weights"]["weights"] == list(survey.tasks[0].class_weights)
    assert values["repeats"][0] == {
        "kind": "equal", "split": "val", "other": "train", "spoils_scores": True,
        "pairs": [{"name": "twin", "other": "t1", "bits": 0, "same_label": False}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Survey:
    """A survey of SIFT Flow in small, which has two tasks."""
    folder: Path = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "data")
    return survey_dataset(prepare("siftflow", folder / "data", folder / "cache"), "train")


def test_each_task_has_its_own_counts_and_weights(scenes):
    assert [given.task.name for given in scenes.tasks] == ["semantic", "geometric"]
    for number, given in enumerate(scenes.tasks):
        for split, names in (("train", NAMES_OF_SCENES[:8]), ("val", TESTED)):
            masks = [draw_scene(NAMES_OF_SCENES.index(name))[1 + number] for name in names]
            values = sorted({int(value) for mask in masks for value in np.unique(mask)})
            labels = {255 if value < 1 else value - 1: value for value in values}  # 0 and -1 are void, 1 is class 0
            found = given.splits[split]
            assert found.pixels == {label: sum((m == value).sum() for m in masks) for label, value in labels.items()}
            assert found.images_with == {label: sum(value in m for m in masks) for label, value in labels.items()}
            assert found.borders.void == sum((mask < 1).sum() for mask in masks)
        assert len(given.class_weights) == len(given.task.class_names)
    semantic, geometric = (given.class_weights for given in scenes.tasks)
    assert semantic[0] == 1  # awning is in no scene
    assert geometric[2] > geometric[1]  # buildings are smaller than roads


def test_text_and_values_of_several_tasks(scenes):
    lines = describe_split(scenes, "train")
    semantic, geometric = lines.index("  semantic task"), lines.index("  geometric task")
    assert (semantic, lines[0].split(":")[0]) == (1, "  width x height")
    assert [line.split()[1] for line in lines[semantic + 2 : semantic + 6]] == ["building", "road", "sky", "void"]
    assert [line.split()[1] for line in lines[geometric + 2 : geometric + 6]] == [*GEOMETRIC, "void"]
    head, flag = describe_class_weights(scenes)
    assert "of the tasks semantic, geometric, from train" in head
    expected = [weight for given in scenes.tasks for weight in given.class_weights]
    np.testing.assert_allclose([float(weight) for weight in flag.split()[1:]], expected, rtol=5e-3)
    values = json.loads(json.dumps(to_json(to_values(scenes))))
    assert set(values["splits"]["val"]) == {"images", "sizes", "labels", "void"}
    assert len(values["class_names"]) == len(values["class_weights"]["weights"]) == 33
    geometric = values["geometric"]
    assert geometric["class_names"] == list(GEOMETRIC)
    assert [row["name"] for row in geometric["splits"]["val"]["labels"]] == [*GEOMETRIC, "void"]
    assert geometric["class_weights"]["weights"] == list(scenes.tasks[1].class_weights)
