"""Void and borders, against loops over the pixels."""

import numpy as np
import pytest

from fcn_jax.data.survey.borders import Borders, measure_borders

PLACES = ((0, 1), (1, 0))


def find_nearest(label: np.ndarray, i: int, j: int) -> set[int]:
    """The classes of the labelled pixels that are nearest to a pixel."""
    places = [(abs(i - y) ** 2 + abs(j - x) ** 2, label[y, x]) for y, x in np.argwhere(label != 255)]
    least = min(distance for distance, _ in places)
    return {int(value) for distance, value in places if distance == least}


def count(label: np.ndarray) -> Borders:
    """The same counts by their definition, for masks whose void has one nearest class everywhere."""
    filled = np.array([[find_nearest(label, i, j).pop() for j in range(label.shape[1])] for i in range(label.shape[0])])
    inside = {(int(i), int(j)) for i, j in np.ndindex(label.shape)}
    pairs = [
        (a, b)
        for a in inside
        for b in ((a[0] + i, a[1] + j) for i, j in PLACES)
        if b in inside and filled[a] != filled[b]
    ]
    beside = {place for pair in pairs for place in pair}
    void = [place for place in inside if label[place] == 255]
    near = [place for place in void if any(max(abs(place[0] - i), abs(place[1] - j)) <= 2 for i, j in beside)]
    return Borders(len(void), len(near), len(pairs), sum(255 in (label[a], label[b]) for a, b in pairs))


def draw(seed: int, void: float) -> np.ndarray:
    """Blocks of three classes with round spots of void, which is cleared where several classes are nearest."""
    generator = np.random.default_rng(seed)
    label = np.kron(generator.integers(0, 3, (3, 4)), np.ones((6, 5), int)).astype(np.uint8)
    y, x = np.mgrid[: label.shape[0], : label.shape[1]]
    for _ in range(round(void * 10)):
        i, j = generator.integers(0, label.shape)
        label[np.hypot(y - i, x - j) < generator.uniform(1, 5)] = 255
    while unclear := [(i, j) for i, j in np.argwhere(label == 255).tolist() if len(find_nearest(label, i, j)) > 1]:
        for i, j in unclear:
            label[i, j] = min(find_nearest(label, i, j))
    return label


@pytest.mark.parametrize(("seed", "void"), [(0, 0.0), (1, 0.2), (2, 0.4), (3, 0.6)])
def test_equals_the_definition(seed, void):
    label = draw(seed, void)
    result = measure_borders(label)
    assert result == count(label)
    assert (result.void > 20) == (void > 0)
    assert result.length > 20


def test_a_band_along_a_border_covers_it():
    label = np.zeros((10, 20), np.uint8)
    label[:, 10:] = 1
    label[:, 7:13] = 255
    assert measure_borders(label) == Borders(void=60, near=60, length=10, covered=10)
    label[:, 3:13] = 255
    # Between columns 7 and 8 as well as by the nearest class: 0 ends at column 2, 1 begins at 13.
    assert measure_borders(label) == Borders(void=100, near=60, length=10, covered=10)


def test_void_far_from_a_border():
    label = np.zeros((30, 30), np.uint8)
    label[:, 20:] = 1
    label[10:14, 4:8] = 255
    assert measure_borders(label) == Borders(void=16, near=0, length=30, covered=0)


@pytest.mark.parametrize("value", [0, 255])
def test_one_label_has_no_border(value):
    assert measure_borders(np.full((4, 5), value, np.uint8)) == Borders(20 * (value == 255), 0, 0, 0)


def test_a_mask_of_one_pixel():
    assert measure_borders(np.zeros((1, 1), np.uint8)) == Borders(0, 0, 0, 0)
