"""Classes that no image has, with the usual reason."""

import numpy as np
import pytest

from fcn_jax.data.absent import describe_absent_classes
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task

NAMES = ("ground", "tree", "water", "road")


def describe(labels, names=NAMES, takes_map=True, task=""):
    pixels = np.zeros(256, np.int64)
    pixels[labels] = 5
    return describe_absent_classes(pixels, Task(task, tuple(names), palette(len(names))), takes_map)


def test_nothing_is_absent():
    assert describe([0, 1, 2, 3, 255]) is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            [0, 255],
            "3 of 4 classes tree, water, road: in no image; masks of 0 and 255, black and white, need --data.map 255",
        ),
        ([255], "4 of 4 classes ground, tree, water, road: in no image; all pixels are void: say"),
        ([1, 2, 3], "the class ground: in no image; if the masks count the classes from 1 on, give --data.map 1-4=0"),
        ([0, 1, 3], "the class water: in no image; if the masks have other values for them"),
    ],
)
def test_reasons(labels, says):
    assert describe(labels).startswith(says)


def test_one_of_several_tasks_is_named():
    assert describe([0, 1, 2], takes_map=False, task="geometric") == "geometric: the class road: in no image"


def test_a_data_set_with_its_own_masks_gets_no_advice():
    assert describe([1, 2, 3], takes_map=False) == "the class ground: in no image"


def test_many_names_are_cut():
    assert describe([0], [f"c{i}" for i in range(30)]).startswith(
        "29 of 30 classes c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, ...:"
    )
