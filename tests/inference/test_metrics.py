"""The four metrics: against a transcription of the definitions in exact fractions, and against the reference's code."""

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_jax.data.labels import IGNORE
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix


def confusion_by_loop(label, prediction, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    for true, predicted in zip(np.ravel(label).tolist(), np.ravel(prediction).tolist(), strict=True):
        if true != 255:
            counts[true, predicted] += 1
    return counts


def metrics_by_loop(n: np.ndarray) -> dict:
    """Section 5 of the paper: n[i][j] pixels of class i predicted as j, t[i] = sum over j of n[i][j]."""
    n = n.tolist()
    classes = range(len(n))
    t = [sum(n[i]) for i in classes]
    accuracy = {i: Fraction(n[i][i], t[i]) for i in classes if t[i]}
    union = {i: t[i] + sum(n[j][i] for j in classes) - n[i][i] for i in classes}
    iu = {i: Fraction(n[i][i], union[i]) for i in classes if union[i]}
    nan = float("nan")
    return {
        "pixel_accuracy": float(Fraction(sum(n[i][i] for i in classes), sum(t))) if sum(t) else nan,
        "mean_accuracy": float(sum(accuracy.values()) / len(accuracy)) if accuracy else nan,
        "mean_iu": float(sum(iu.values()) / len(iu)) if iu else nan,
        "frequency_weighted_iu": float(sum(t[i] * iu[i] for i in classes if t[i]) / sum(t)) if sum(t) else nan,
        "per_class_iu": [float(iu[i]) if i in iu else nan for i in classes],
        "per_class_accuracy": [float(accuracy[i]) if i in accuracy else nan for i in classes],
    }


def assert_equals_loop(confusion: np.ndarray) -> None:
    ours, expected = compute_metrics(confusion)._asdict(), metrics_by_loop(confusion)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-12, equal_nan=True, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_confusion_and_metrics_equal_the_definitions(data, classes):
    label = data.draw(st.lists(st.one_of(st.integers(0, classes - 1), st.just(255)), max_size=30))
    prediction = data.draw(st.lists(st.integers(0, classes - 1), min_size=len(label), max_size=len(label)))
    confusion = confusion_matrix(np.array(label, np.uint8), np.array(prediction, np.uint8), classes)
    np.testing.assert_array_equal(confusion, confusion_by_loop(label, prediction, classes))
    assert_equals_loop(confusion)


def test_ignored_classes_count_as_void_and_have_no_iu():
    """Pixel by pixel: what is labelled with such a class is not scored, and no mean has a term for it."""
    generator = np.random.default_rng(0)
    label, prediction = generator.integers(0, 5, (2, 400)).astype(np.uint8)
    label[label == 3] = 2  # class 3 is predicted only
    confusion, ignored = confusion_matrix(label, prediction, 5), (1, 3)
    ours = compute_metrics(confusion, ignored)
    scored = [(true, found) for true, found in zip(label.tolist(), prediction.tolist(), strict=True) if true != 1]
    assert ours.pixel_accuracy == sum(true == found for true, found in scored) / len(scored)
    ious = []
    for name in range(5):
        both = sum(true == found == name for true, found in scored)
        union = sum(name in pair for pair in scored)
        assert np.isnan(ours.per_class_iu[name]) if name in ignored else ours.per_class_iu[name] == both / union
        ious += [] if name in ignored else [both / union]
    assert ours.mean_iu == pytest.approx(np.mean(ious))
    assert compute_metrics(confusion).mean_iu < compute_metrics(confusion, (3,)).mean_iu  # without the IU of 0
    assert confusion.sum() == 400  # unchanged


def test_realistic_images_equal_the_definitions():
    generator = np.random.default_rng(0)
    label = generator.choice([0, 1, 2, 5, 255], size=(3, 40, 50)).astype(np.uint8)
    prediction = np.where(generator.random(label.shape) < 0.6, label % 7, generator.choice([0, 3, 5], label.shape))
    confusion = confusion_matrix(label, prediction.astype(np.uint8), 7)
    np.testing.assert_array_equal(confusion, confusion_by_loop(label, prediction, 7))
    assert_equals_loop(confusion)


def test_equals_the_reference_implementation():
    # score.py of the authors' repository, its lines.
    hist = np.random.default_rng(1).integers(0, 1000, (8, 8))
    hist[2] = hist[:, 2] = 0
    with np.errstate(invalid="ignore"):
        acc = np.diag(hist) / hist.sum(1)
        iu = np.diag(hist) / (hist.sum(1) + hist.sum(0) - np.diag(hist))
        freq = hist.sum(1) / hist.sum()
    ours = compute_metrics(hist)
    assert ours.pixel_accuracy == pytest.approx(np.diag(hist).sum() / hist.sum(), abs=1e-12)
    assert ours.mean_accuracy == pytest.approx(np.nanmean(acc), abs=1e-12)
    assert ours.mean_iu == pytest.approx(np.nanmean(iu), abs=1e-12)
    assert ours.frequency_weighted_iu == pytest.approx((freq[freq > 0] * iu[freq > 0]).sum(), abs=1e-12)


def test_by_hand():
    metrics = compute_metrics(np.array([[3, 1, 0], [1, 2, 0], [0, 0, 0]]))
    assert metrics.pixel_accuracy == pytest.approx(5 / 7, abs=1e-15)
    assert metrics.mean_accuracy == pytest.approx((3 / 4 + 2 / 3) / 2, abs=1e-15)
    assert metrics.mean_iu == pytest.approx((3 / 5 + 2 / 4) / 2, abs=1e-15)
    assert metrics.frequency_weighted_iu == pytest.approx((4 * 3 / 5 + 3 * 2 / 4) / 7, abs=1e-15)


def test_class_only_in_the_prediction_counts_as_zero_iu_and_has_no_accuracy():
    metrics = compute_metrics(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3))
    np.testing.assert_array_equal(metrics.per_class_iu, [0.5, 0, np.nan])
    np.testing.assert_array_equal(metrics.per_class_accuracy, [0.5, np.nan, np.nan])
    assert (metrics.mean_iu, metrics.mean_accuracy, metrics.frequency_weighted_iu) == (0.25, 0.5, 0.5)


def test_class_only_in_the_truth_counts_as_zero_in_both():
    metrics = compute_metrics(confusion_matrix(np.array([0, 1]), np.array([0, 0]), 2))
    np.testing.assert_array_equal(metrics.per_class_iu, [0.5, 0])
    np.testing.assert_array_equal(metrics.per_class_accuracy, [1, 0])
    assert (metrics.mean_iu, metrics.mean_accuracy, metrics.frequency_weighted_iu) == (0.25, 0.5, 0.25)


def test_all_void_is_nan_throughout():
    confusion = confusion_matrix(np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.uint8), 2)
    assert not confusion.any()
    metrics = compute_metrics(confusion)
    assert all(math.isnan(value) for value in metrics[:4])
    assert np.isnan(metrics.per_class_iu).all()
    assert np.isnan(metrics.per_class_accuracy).all()


def test_single_class():
    metrics = compute_metrics(confusion_matrix(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), 1))
    assert metrics[:4] == (1.0, 1.0, 1.0, 1.0)


def test_void_pixels_do_not_count_whatever_is_predicted_there():
    label = np.array([0, 1, 255, 255], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(label, np.array([0, 1, 1, 0], np.uint8), 2), np.eye(2))
    # Not even a prediction that is no class.
    np.testing.assert_array_equal(confusion_matrix(label, np.array([0, 1, 255, 77], np.uint8), 2), np.eye(2))


def test_counts_are_64_bit_integers():
    confusion = confusion_matrix(np.zeros(3, np.uint8), np.zeros(3, np.uint8), 2)
    assert confusion.dtype == np.int64
    big = confusion + np.array([[2**40, 0], [0, 0]])
    assert big[0, 0] == 2**40 + 3


def test_counts_beyond_32_bits():
    # The whole of a large validation set; in float32 or int32 these come out wrong.
    confusion = np.array([[2**33 + 1, 2**31], [2**32 - 1, 2**34 + 12345]])
    assert_equals_loop(confusion)
    one_wrong = np.array([[2**33, 1], [0, 2**33]])
    assert compute_metrics(one_wrong).pixel_accuracy < 1.0
    assert compute_metrics(one_wrong).pixel_accuracy == pytest.approx(1 - 1 / (2**34 + 1), abs=1e-16)


def test_label_out_of_range():
    with pytest.raises(
        ValueError, match=r"label 37 is outside 0\.\.20; it must be a class, and only a label may be 255"
    ):
        confusion_matrix(np.array([0, 37], np.uint8), np.array([0, 0], np.uint8), 21)
    with pytest.raises(ValueError, match=r"label -1 is outside 0\.\.20; it must be a class"):
        confusion_matrix(np.array([0, -1]), np.array([0, 0]), 21)


def test_prediction_out_of_range():
    with pytest.raises(ValueError, match=r"prediction 21 is outside 0\.\.20"):
        confusion_matrix(np.array([0, 20], np.uint8), np.array([0, 21], np.uint8), 21)
    with pytest.raises(ValueError, match=r"prediction -3 is outside 0\.\.1"):
        confusion_matrix(np.array([0, 1]), np.array([0, -3]), 2)


@pytest.mark.parametrize(
    ("label", "prediction", "classes", "message"),
    [
        ([[0, 1]], [0, 1], 2, r"label has the shape \(1, 2\) and prediction \(2,\)"),
        ([0, math.nan], [0, 1], 2, "label is float64; it must have the class of each pixel as an integer"),
        ([0, 1], [0.5, 1.9], 2, "prediction is float64; it must have"),
        ([], [], 0, "label is float64"),
        ([0], [0], 0, "num_classes is 0; it must be an integer of at least 1"),
        ([0], [0], 2.0, r"num_classes is 2\.0; it must be an integer"),
    ],
)
def test_what_is_no_class_map_is_refused(label, prediction, classes, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(confusion_matrix)(label, prediction, classes)


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.ones((2, 3), int), r"confusion has the shape \(2, 3\); it must be \[classes, classes\]"),
        (np.ones(4, int), r"confusion has the shape \(4,\)"),
        (np.zeros((0, 0), int), "at least one class"),
        (-np.ones((2, 2), int), "from -1; it must have counts"),
        (np.full((2, 2), math.nan), "confusion is float64, from nan; it must have counts, integers from 0"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(confusion, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(compute_metrics)(confusion)


def test_the_void_label_is_vocs():
    assert IGNORE == 255
