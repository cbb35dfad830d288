"""Upsampling kernels that are bilinear, and those that are not."""

import ml_dtypes
import numpy as np
import pytest

from fcn_jax.weights.merge import Match
from fcn_jax.weights.upsampling import find_learned_kernels, measure_difference
from fcn_jax.weights.weights import Weights


def bilinear(size: int, classes: int) -> np.ndarray:
    """Bilinear filters on the diagonal, number by number as `upsample_filt` in the reference's surgery.py."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    kernel = np.zeros((size, size, classes, classes), np.float32)
    for row in range(size):
        for column in range(size):
            value = (1 - abs(row - centre) / factor) * (1 - abs(column - centre) / factor)
            for index in range(classes):
                kernel[row, column, index, index] = value
    return kernel


@pytest.mark.parametrize("size", [3, 4, 16, 31, 64])
def test_bilinear_kernels_do_not_differ(size):
    kernel = bilinear(size, 2)
    assert measure_difference(kernel) == 0
    for dtype in (np.float16, ml_dtypes.bfloat16):
        assert measure_difference(kernel.astype(dtype).astype(np.float32)) == 0


@pytest.mark.parametrize("place", [(1, 2, 0, 0), (1, 1, 2, 2), (0, 0, 1, 2), (3, 3, 2, 1)])
def test_each_number_is_compared(place):
    kernel = bilinear(4, 3)
    for change in (0.01, -0.25):
        changed = kernel.copy()
        changed[place] += change
        assert measure_difference(changed) == pytest.approx(abs(change), rel=1e-5)


def test_filters_of_another_class_differ():
    kernel = bilinear(4, 3)
    assert measure_difference(kernel[..., [1, 0, 2]]) == pytest.approx(0.75**2)


def test_only_kernels_and_classes_that_are_taken_count():
    learned = bilinear(4, 3)
    learned[..., 2] += 0.5
    others = np.ones((1, 1, 4, 3), np.float32)
    arrays = {
        "params/upscore2/kernel": learned,
        "params/upscore8/kernel": bilinear(16, 3),
        "params/score_fr/kernel": others,
    }
    weights = Weights(arrays, (), None, "w", ("sky", "sea", "sand"))

    def find(loaded=(), by_class=(), classes=()) -> dict[str, float]:
        return find_learned_kernels(Match(weights, loaded, by_class, (), (), (), classes))

    assert find(tuple(arrays)) == {"params/upscore2/kernel": pytest.approx(0.5)}
    assert find(("params/upscore8/kernel",)) == {}
    assert find(by_class=tuple(arrays), classes=((0, 1, "sea"), (1, 0, "sky"))) == {}
    assert list(find(by_class=tuple(arrays), classes=((0, 1, "sea"), (1, 2, "sand")))) == ["params/upscore2/kernel"]
    assert find(by_class=tuple(arrays)) == {}
