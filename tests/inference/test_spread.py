"""Images chosen from all over a split."""

import pytest

from fcn_jax.inference.spread import choose_evenly, spread_indices


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(5, None, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (3, 10, [0, 1, 2]), (7, 1, [0]), (0, None, [])],
)
def test_indices_are_spread_evenly(length, count, expected):
    assert spread_indices(length, count) == expected


def test_items_are_chosen_evenly():
    assert choose_evenly("abcdefghi", 3) == ["a", "e", "i"]
    assert choose_evenly(["a", "b"], None) == ["a", "b"]
