"""Arrays for other classes than they were trained with."""

import numpy as np
import pytest

from fcn_jax.errors import InputError
from fcn_jax.weights.classes import count_class_axes, name_classes, take_classes
from fcn_jax.weights.weights import Weights


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("params/score_fr/kernel", 1),
        ("params/score_pool4/bias", 1),
        ("params/upscore2/kernel", 2),
        ("params/upscore_pool4/kernel", 2),
        ("params/backbone/fc7/kernel", 0),
        ("batch_stats/backbone/bn1/mean", 0),
        ("params/classifier/score/kernel", 1),
    ],
)
def test_axes_that_run_over_classes(path, expected):
    assert count_class_axes(path) == expected


def test_known_classes_are_copied_and_others_stay():
    start, file = np.zeros((2, 3)), np.arange(8.0).reshape(2, 4) + 1
    taken = take_classes(start, file, 1, [(0, 3), (2, 1)])
    np.testing.assert_array_equal(taken, [[4, 0, 2], [8, 0, 6]])
    assert not start.any()


def test_upsampling_is_copied_between_pairs_of_known_classes():
    start, file = np.full((5, 3, 3), -1.0), np.random.default_rng(0).normal(size=(5, 4, 4))
    taken = take_classes(start, file, 2, [(0, 3), (2, 1)])
    index = {0: 3, 2: 1}
    for i in range(3):
        for j in range(3):
            both = i in index and j in index
            np.testing.assert_array_equal(taken[:, i, j], file[:, index[i], index[j]] if both else -1)


def test_without_known_classes_all_stay():
    start = np.random.default_rng(0).normal(size=(4, 3, 3))
    for axes, file in ((1, np.ones((4, 3, 2))), (2, np.ones((4, 2, 2)))):
        np.testing.assert_array_equal(take_classes(start, file, axes, []), start)


def test_names_may_be_given_to_scores():
    arrays = {"params/score_fr/bias": np.zeros(3, np.float32), "params/backbone/fc7/bias": np.zeros(9, np.float32)}
    weights = Weights(arrays, ("fc8",), None, "w")
    assert name_classes(weights, ["sky", "sea", "sand"]) == weights._replace(class_names=("sky", "sea", "sand"))
    with pytest.raises(InputError, match="params/score_fr/bias of w has 3 classes, and 2 names are given"):
        name_classes(weights, ("sky", "sea"))
