"""The comparison of an exported file with its network, task by task, against loops over the pixels."""

import numpy as np
import pytest

from fcn_jax.data.dataset import Example
from fcn_jax.errors import ExportDiffers
from fcn_jax.inference.export.parity import TOLERANCE, Reference, Result, compare

COUNTS = (4, 3)
GENERATOR = np.random.default_rng(0)


def draw(height: int, width: int) -> Reference:
    """An image with labels and logits of both tasks; the second task's logits are a thousand times smaller."""
    label = np.stack([GENERATOR.integers(0, count, (height, width)) for count in COUNTS], axis=-1).astype(np.uint8)
    label[0, :, 1] = 255
    logits = GENERATOR.normal(size=(height, width, 7)).astype(np.float32)
    logits[..., 4:] *= 1e-3
    return Reference(Example("a", np.zeros((height, width, 3), np.uint8), label), logits)


REFERENCES = [draw(5, 6), draw(3, 8)]


def choose(logits: np.ndarray) -> np.ndarray:
    return np.stack([part.argmax(-1) for part in np.split(logits, [4], axis=-1)], axis=-1).astype(np.uint8)


def make_run(change):
    """A file that gives what the network gives, changed."""
    rest = iter(REFERENCES)

    def run(image: np.ndarray) -> Result:
        logits = next(rest).logits.copy()
        return Result(choose(logits), change(logits))

    return run


def compute_mean_iu(task: int, count: int) -> float:
    true, predicted = [], []
    for example, logits in REFERENCES:
        for place in np.ndindex(example.label.shape[:2]):
            if example.label[place][task] != 255:
                true.append(int(example.label[place][task]))
                predicted.append(int(choose(logits)[place][task]))
    pairs = list(zip(true, predicted, strict=True))
    ious = []
    for label in range(count):
        both = sum(pair == (label, label) for pair in pairs)
        ious.append(both / (true.count(label) + predicted.count(label) - both))
    return float(np.mean(ious))


def test_each_task_is_scored():
    def change(logits: np.ndarray) -> np.ndarray:
        logits[0, 0] *= 1 + TOLERANCE / 4
        return logits

    found = compare("m", make_run(change), REFERENCES, COUNTS)
    assert len(found) == 2
    for task, (parity, logits) in enumerate(
        zip(found, ([r.logits[..., :4] for r in REFERENCES], [r.logits[..., 4:] for r in REFERENCES]), strict=True)
    ):
        assert (parity.images, parity.pixels, parity.other_classes, parity.largest_margin) == (2, 54, 0, 0)
        expected = max(np.abs(own[0, 0]).max() / np.abs(own).max() for own in logits) * TOLERANCE / 4
        assert parity.largest_difference == pytest.approx(expected, rel=0.1)
        assert parity.mean_iu == parity.mean_iu_of_network == pytest.approx(compute_mean_iu(task, COUNTS[task]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of each task, pixel by pixel."""
    shares = np.zeros(logits.shape, np.float32)
    for place in np.ndindex(logits.shape[:2]):
        for part in (slice(0, 4), slice(4, 7)):
            powers = [float(np.exp(float(logit))) for logit in logits[place][part]]
            shares[place][part] = [power / sum(powers) for power in powers]
    return shares


@pytest.mark.parametrize("task", [0, 1])
def test_probabilities_are_compared_too(task):
    def make(by: float):
        rest = iter(REFERENCES)

        def run(image: np.ndarray) -> Result:
            logits = next(rest).logits
            shares = softmax(logits)
            shares[1, 2, 4 * task] += by
            return Result(choose(logits), None, shares)

        return run

    found = compare("m", make(TOLERANCE / 4), REFERENCES, COUNTS)[task]
    assert found.largest_difference is None
    assert found.largest_probability_difference == pytest.approx(TOLERANCE / 4, rel=0.01)
    with pytest.raises(ExportDiffers, match="m computes something else than the network: on a by"):
        compare("m", make(10 * TOLERANCE), REFERENCES, COUNTS)


def test_a_difference_in_one_task_is_one_of_its_own_scores():
    """In the first task this difference would be far below what is allowed."""

    def change(logits: np.ndarray) -> np.ndarray:
        logits[0, 0, 5] += 2e-2 * 1e-3
        return logits

    with pytest.raises(ExportDiffers, match="m computes something else than the network: on a by"):
        compare("m", make_run(change), REFERENCES, COUNTS)


def test_a_class_map_of_another_size():
    def run(image: np.ndarray) -> Result:
        return Result(np.zeros((1, 1, 2), np.uint8), None)

    with pytest.raises(ExportDiffers, match=r"m gives a class map of \(1, 1\) for a, an image of \(5, 6\)"):
        compare("m", run, REFERENCES, COUNTS)


def test_images_without_labels_have_no_mean_iu():
    example, logits = REFERENCES[0]
    void = Reference(example._replace(label=np.full_like(example.label, 255)), logits)
    parities = compare("m", lambda image: Result(choose(logits), None), [void], COUNTS)
    for parity in parities:
        assert np.isnan(parity.mean_iu)
        assert parity.largest_difference is None


def test_numbers_that_are_not_finite_are_no_parity():
    def spoil(logits):
        logits[0, 0, 0] = np.nan
        return logits

    with pytest.raises(ExportDiffers, match="computes something else"):
        compare("a file", make_run(spoil), REFERENCES, COUNTS)
