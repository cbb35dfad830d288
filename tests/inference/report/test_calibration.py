"""Confidences and the calibration error, against loops in float64."""

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from small_runs import NORMED, examples

from fcn_jax.config import InputConfig
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.inference.evaluate import evaluate
from fcn_jax.inference.report.calibration import (
    BINS,
    Bins,
    calibrate,
    count_confidences,
    make_counting_forward,
    record_bins,
)
from fcn_jax.inference.tiles import Tiling
from fcn_jax.models.fcn import FCN


def count(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, right pixels and confidences of each bin, pixel by pixel."""
    pixels, right, confidences = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for place in zip(*np.nonzero(label != 255), strict=True):
        scores = logits[place].astype(np.float64)
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        index = min(max(math.ceil(shares.max() * BINS) - 1, 0), BINS - 1)
        pixels[index] += 1
        right[index] += scores.argmax() == label[place]
        confidences[index] += shares.max()
    return pixels, right, confidences


def test_pixels_are_counted_by_the_probability_of_their_class():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (2, 13, 17, 5)).astype(np.float32)
    logits[0, 0] = 0  # as sure as can be of nothing: 1 / 5 is the upper end of a bin
    logits[1, 0, :, 2] = 200  # sure of everything, without an overflow
    label = generator.integers(0, 5, (2, 13, 17)).astype(np.uint8)
    label[generator.random(label.shape) < 0.2] = 255
    label[0, 0] = 255
    class_map = logits.argmax(-1).astype(np.uint8)
    found = count_confidences(jnp.asarray(logits), jnp.asarray(class_map), jnp.asarray(label))
    expected = count(logits, label)
    np.testing.assert_array_equal(found.pixels, expected[0])
    np.testing.assert_array_equal(found.right, expected[1])
    np.testing.assert_allclose(found.confidence, expected[2], rtol=1e-5)
    assert expected[0].sum() == (label != 255).sum()


def test_the_error_is_the_mean_distance_of_accuracy_and_confidence():
    zeros = np.zeros(BINS)
    first, second = (Bins(zeros.copy(), zeros.copy(), zeros.copy()) for _ in range(2))
    first.pixels[8], first.right[8], first.confidence[8] = 10, 9, 5.6
    second.pixels[8], second.right[8], second.confidence[8] = 10, 5, 5.8
    second.pixels[14], second.right[14], second.confidence[14] = 60, 30, 57.0
    result = calibrate([first, second])
    assert result.accuracy[8] == 14 / 20
    np.testing.assert_allclose(result.confidence[8], 0.57)
    assert (result.share[8], result.share[14]) == (0.25, 0.75)
    assert np.isnan(result.accuracy[0])
    np.testing.assert_allclose(result.error, 0.25 * abs(0.7 - 0.57) + 0.75 * abs(0.5 - 0.95))


def test_without_pixels_there_is_no_error():
    assert np.isnan(calibrate([]).error)


class Linear(FCN):
    """A network whose logits are linear in the pixel, so that NumPy computes them too."""

    @nn.compact
    def __call__(self, images, size=None, train=False, origin=None):
        return nn.Dense(self.num_classes, name="dense")(images)


def test_every_labelled_pixel_of_a_split_is_counted_once():
    """Images are padded to a canvas, computed in batches, and the large one in tiles."""
    generator = np.random.default_rng(3)
    kernel, bias = generator.normal(0, 1.5, (3, 3)).astype(np.float32), np.float32([0.1, -0.2, 0.3])
    variables = {"params": {"dense": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}
    images = examples(11)
    bins: list[Bins] = []
    forward = record_bins(make_counting_forward(Linear(num_classes=3, backbone=NORMED), InputConfig()), bins)
    result = evaluate(forward, variables, images, (Task("", tuple("abc"), palette(3)),), 8, tiling=Tiling(32, 0, 32))
    mean, std = np.array(InputConfig().mean), np.array(InputConfig().std)
    counts = [count((e.image - mean) / std @ kernel.astype(np.float64) + bias, e.label) for e in images]
    pixels, right, confidences = np.sum(counts, axis=0)
    found = calibrate(bins)
    assert result.confusion.sum() == pixels.sum() == sum((e.label != 255).sum() for e in images)
    assert np.trace(result.confusion) == right.sum()
    # A confidence may lie at the end of a bin, up to rounding.
    assert np.abs(found.share * pixels.sum() - pixels).sum() <= 4
    np.testing.assert_allclose(found.error, np.abs(right - confidences).sum() / pixels.sum(), atol=1e-3)
