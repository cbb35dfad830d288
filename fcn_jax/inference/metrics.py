"""The four segmentation metrics of the FCN paper (section 5), computed from a confusion matrix of pixel counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer

from fcn_jax.data.labels import IGNORE
from fcn_jax.layers.sizes import is_int

SUMMARY = (
    "mean_iu",
    "pixel_accuracy",
    "mean_accuracy",
    "frequency_weighted_iu",
)  # as they are shown


class Metrics(NamedTuple):
    """Metrics as fractions, 0 to 1; NaN if the denominator is 0.

    Attributes:
        pixel_accuracy: share of the labelled pixels that are predicted correctly.
        mean_accuracy: mean of `per_class_accuracy` over the classes that are in the truth.
        mean_iu: mean of `per_class_iu` over the classes that are in the truth or the prediction.
        frequency_weighted_iu: sum of `per_class_iu`, each times the class's share of the labelled pixels.
        per_class_iu: float64[classes], intersection over union: pixels of the class in both truth and prediction,
            divided by those in at least one; NaN for a class in neither.
        per_class_accuracy: float64[classes], share of the class's true pixels that are predicted correctly; NaN for a
            class that is not in the truth.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    frequency_weighted_iu: float
    per_class_iu: np.ndarray
    per_class_accuracy: np.ndarray


def confusion_matrix(
    label: Integer[np.ndarray, "*pixels"], prediction: Integer[np.ndarray, "*pixels"], num_classes: int
) -> Int64[np.ndarray, "{num_classes} {num_classes}"]:
    """Count pixels by (true class, predicted class), without those labelled `IGNORE`.

    Raises:
        ValueError: a prediction is outside 0..num_classes-1, or a label is and is not `IGNORE`; or label and prediction
            are not integers of one shape.
    """
    label, prediction = np.asarray(label), np.asarray(prediction)
    for what, values in (("label", label), ("prediction", prediction)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{what} is {values.dtype}; it must have the class of each pixel as an integer")
    if label.shape != prediction.shape:
        raise ValueError(f"label has the shape {label.shape} and prediction {prediction.shape}; both must be the same")
    if not is_int(num_classes) or num_classes < 1:
        raise ValueError(f"num_classes is {num_classes!r}; it must be an integer of at least 1")
    valid = label != IGNORE
    label, prediction = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for what, values in (("label", label), ("prediction", prediction)):
        if values.size and not (values.min() >= 0 and values.max() < num_classes):
            raise ValueError(
                f"{what} {values.max() if values.min() >= 0 else values.min()} is outside 0..{num_classes - 1}; "
                f"it must be a class, and only a label may be {IGNORE}, void"
            )
    counts = np.bincount(num_classes * label + prediction, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def compute_metrics(confusion: Integer[np.ndarray, "classes classes"], ignored: Sequence[int] = ()) -> Metrics:
    """Compute the metrics of a confusion matrix (rows = truth).

    Means leave out classes whose value is NaN, as `nanmean` in the reference's `score.py` does.

    Args:
        confusion: number of pixels by (true class, predicted class).
        ignored: classes to leave out: their true pixels count as void, and their values are NaN. Another class's pixel
            that is predicted as one of them is still wrong.

    Raises:
        ValueError: the matrix is not square, is empty, or does not have counts.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or not confusion.size:
        raise ValueError(
            f"confusion has the shape {confusion.shape}; it must be [classes, classes], at least one class"
        )
    if not np.issubdtype(confusion.dtype, np.integer) or confusion.min() < 0:
        raise ValueError(
            f"confusion is {confusion.dtype}, from {confusion.min()}; it must have counts, integers from 0"
        )
    confusion = confusion.astype(np.float64)
    confusion[list(ignored)] = 0
    right = np.diag(confusion)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    accuracy = _ratio(right, truth)
    iu = _ratio(right, truth + predicted - right)
    iu[list(ignored)] = np.nan
    return Metrics(
        pixel_accuracy=float(_ratio(right.sum(), truth.sum())),
        mean_accuracy=_mean(accuracy),
        mean_iu=_mean(iu),
        frequency_weighted_iu=float(_ratio(np.where(truth > 0, truth * iu, 0).sum(), truth.sum())),
        per_class_iu=iu,
        per_class_accuracy=accuracy,
    )


def _ratio(part: np.ndarray | np.float64, whole: np.ndarray | np.float64) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
