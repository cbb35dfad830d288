"""Boundary IU, against erosions written as loops over pixels."""

import numpy as np
import pytest
from numpy.random import default_rng

from fcn_jax.inference.report.boundary import boundary_width, count_boundaries, find_boundary

VOID = 255


def draw_map(height: int, width: int, seed: int, void: bool = False) -> np.ndarray:
    """Blocks of three classes, so that regions have an inside."""
    generator = default_rng(seed)
    small = generator.integers(0, 3, (-(-height // 9), -(-width // 9))).astype(np.uint8)
    if void:
        small[generator.random(small.shape) < 0.2] = VOID
    return small.repeat(9, axis=0).repeat(9, axis=1)[:height, :width]


def erode(mask: np.ndarray) -> np.ndarray:
    """One erosion by a square of 3x3; outside the image nothing belongs to the mask."""
    eroded = np.zeros_like(mask)
    for i, j in np.ndindex(mask.shape):
        around = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        eroded[i, j] = all(0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] for y, x in around)
    return eroded


def boundary_of(mask: np.ndarray, distance: int) -> np.ndarray:
    inside = mask
    for _ in range(distance):
        inside = erode(inside)
    return mask & ~inside


@pytest.mark.parametrize(("height", "width"), [(40, 60), (70, 52), (1, 1), (3, 30)])
@pytest.mark.parametrize("void", [False, True])
def test_the_counts_are_those_of_eroded_masks(height, width, void):
    label, prediction = draw_map(height, width, 0, void), draw_map(height, width, 1)
    prediction[: height // 2] = np.where(label == VOID, prediction, label)[: height // 2]
    distance = boundary_width(height, width)
    valid = label != VOID
    expected = np.zeros((2, 4), int)
    for index in range(4):
        truth = boundary_of(label == index, distance)
        predicted = boundary_of((prediction == index) & valid, distance)
        expected[:, index] = (truth & predicted).sum(), (truth | predicted).sum()
    np.testing.assert_array_equal(count_boundaries(label, prediction, 4), expected)
    assert not expected[:, 3].any()


def test_a_perfect_prediction_has_boundary_iu_1():
    label = draw_map(60, 60, 2, void=True)
    prediction = np.where(label == VOID, np.uint8(1), label)  # void is not counted, whatever is predicted there
    common, union = count_boundaries(label, prediction, 3)
    np.testing.assert_array_equal(common, union)
    assert (union > 0).all()
    assert union.sum() < (label != VOID).sum()  # the insides are left out


def test_the_width_is_2_percent_of_the_diagonal():
    assert boundary_width(300, 400) == 10
    assert boundary_width(1, 1) == 1
    assert boundary_width(480, 360) == round(0.02 * 600)


def test_the_border_of_the_image_is_a_contour():
    found = find_boundary(np.full((9, 9), 255, np.uint8), 2)
    expected = np.ones((9, 9), bool)
    expected[2:-2, 2:-2] = False
    np.testing.assert_array_equal(found, expected)
