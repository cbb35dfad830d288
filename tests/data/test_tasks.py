"""Labels, class maps and scores of several tasks, split and joined."""

import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.data.tasks import (
    Task,
    count_classes,
    count_maps,
    describe_classes,
    find_classes,
    is_same,
    join_maps,
    name_scores,
    split_maps,
    split_scores,
    stack_label,
    unstack_label,
)
from fcn_jax.errors import InputError

COLOURS = np.zeros((3, 3), np.uint8)
ONE = (Task("", ("sky", "sea", "sand"), COLOURS),)
TWO = (Task("semantic", ("sky", "sea"), COLOURS[:2]), Task("geometric", ("sky", "flat", "steep"), COLOURS))
LABEL = np.random.default_rng(0).integers(0, 9, (4, 5, 2), np.uint8)


def test_classes_of_tasks():
    assert (count_classes(ONE), count_classes(TWO)) == ((3,), (2, 3))
    assert name_scores(ONE) == ("sky", "sea", "sand")
    assert name_scores(TWO) == ("sky", "sea", "geometric/sky", "geometric/flat", "geometric/steep")
    assert describe_classes(ONE) == "sky, sea, sand"
    assert describe_classes(TWO) == "semantic: sky, sea; geometric: sky, flat, steep"


def test_classes_are_found_by_name():
    assert find_classes(ONE, ()) == ((),)
    assert find_classes(ONE, ("sand", "sky", "sand")) == ((0, 2),)
    assert find_classes(TWO, ("geometric/steep", "sky", "geometric/sky")) == ((0,), (0, 2))
    with pytest.raises(
        InputError,
        match=r"there is no class 'steep'; the classes are sky, sea, geometric/sky, geometric/",
    ):
        find_classes(TWO, ("sky", "steep"))


def test_tasks_of_other_colours_are_the_same():
    assert is_same(TWO, [task._replace(palette=task.palette + 1) for task in TWO])
    assert not is_same(TWO, TWO[:1])
    assert not is_same(TWO, (TWO[0], TWO[1]._replace(class_names=("sky", "flat", "round"))))
    assert not is_same(TWO, (TWO[0], TWO[1]._replace(name="other")))


def test_maps_are_split_and_joined():
    first, second = split_maps(LABEL, 2)
    for row in range(4):
        for column in range(5):
            assert (first[row, column], second[row, column]) == tuple(LABEL[row, column])
    np.testing.assert_array_equal(join_maps([first, second]), LABEL)
    assert split_maps(first, 1) == (first,)
    assert join_maps([first]) is first
    assert (count_maps(first), count_maps(LABEL)) == (1, 2)


@pytest.mark.parametrize("library", [np, jnp])
def test_scores_are_split_by_task(library):
    scores = library.arange(12.0).reshape(2, 6)
    parts = split_scores(scores, (1, 3, 2))
    assert [part.tolist() for part in parts] == [[[0], [6]], [[1, 2, 3], [7, 8, 9]], [[4, 5], [10, 11]]]
    assert split_scores(scores, (6,))[0] is scores


def test_labels_below_each_other():
    stacked = stack_label(LABEL)
    np.testing.assert_array_equal(stacked[:4], LABEL[..., 0])
    np.testing.assert_array_equal(stacked[4:], LABEL[..., 1])
    np.testing.assert_array_equal(unstack_label(stacked, 4), LABEL)
    assert stack_label(LABEL[..., 0]).shape == (4, 5)
    assert unstack_label(stacked, 8) is stacked
