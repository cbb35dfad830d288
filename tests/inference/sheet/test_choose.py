"""Which images a sheet shows."""

import numpy as np

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import palette
from fcn_jax.data.survey.measure import Measured, measure
from fcn_jax.data.survey.survey import Survey, summarise_images, summarise_task
from fcn_jax.data.tasks import Task
from fcn_jax.inference.sheet.choose import choose_per_class


def make(split: str, index: int, **pixels: int) -> Measured:
    """An image of 100 pixels with as many of each label as given, the rest of label 0."""
    label = np.zeros(100, np.uint8)
    end = 0
    for name, count in pixels.items():
        label[end : end + count] = int(name[1:])
        end += count
    image = np.full((10, 10, 3), 40 * (split == "val") + index, np.uint8)
    return measure(split, index, Example(f"{split}{index}", image, label.reshape(10, 10)))


def survey(splits: dict[str, list[Measured]], names: tuple[str, ...]) -> Survey:
    task = Task("", names, palette(len(names)))
    images = {split: summarise_images(members) for split, members in splits.items()}
    return Survey("a", images, [summarise_task(task, 0, splits, "train")], "train", [])


def test_the_rarest_classes_and_the_images_with_most_of_them():
    train = [make("train", i, c1=10, c2=2 * i, c255=1) for i in range(8)]
    val = [make("val", 0, c2=30, c4=1), train[7]]  # an image that is in both splits is shown once
    names = ("ground", "tree", "water", "sky", "road")
    chosen = choose_per_class(survey({"train": train, "val": val}, names), 0)
    assert [(name, [image.name for image in images]) for name, images in chosen] == [
        ("road", ["val0"]),
        ("tree", ["train0", "train1", "train2", "train3"]),
        ("water", ["val0", "train7", "train6", "train5"]),
        ("ground", ["train0", "train1", "train2", "train3"]),
    ]


def test_of_many_classes_the_rarest_six():
    images = [make("train", 0, **{f"c{label}": label for label in range(1, 10)})]
    chosen = choose_per_class(survey({"train": images}, tuple("abcdefghijk")), 0)
    assert [name for name, _ in chosen] == ["b", "c", "d", "e", "f", "g"]
