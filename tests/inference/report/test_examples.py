"""The choice of examples."""

import math

import pytest
from small_runs import examples

from fcn_jax.inference.report.examples import Subset, rank


def test_the_extremes_and_the_middle_are_chosen():
    scores = {index: (index * 7 % 20) / 20 for index in range(20)} | {20: math.nan}
    chosen = rank(scores)
    assert [scores[index] for index in chosen["best"]] == [0.95, 0.9, 0.85]
    assert [scores[index] for index in chosen["worst"]] == [0, 0.05, 0.1]
    assert [scores[index] for index in chosen["median"]] == [0.4, 0.45, 0.5]


@pytest.mark.parametrize("count", range(12))
def test_no_image_is_chosen_twice(count):
    chosen = rank({index: index / 20 for index in range(count)})
    indices = [index for ranked in chosen.values() for index in ranked]
    assert len(set(indices)) == len(indices)
    assert len(chosen["best"]) == (0 if not count else min(3, max(1, count // 3)))
    assert (len(chosen["worst"]) > 0) == (count >= 2)
    assert (len(chosen["median"]) > 0) == (count >= 3)


def test_a_subset_names_its_examples_by_index():
    whole = examples(5)
    part = Subset(whole, [4, 1])
    assert [example.name for example in part] == ["4", "1"]
    assert part[1].image is whole[1].image
    assert len(part) == 2
