"""Weights that make rare classes count more in the loss."""

from collections.abc import Sequence

import numpy as np

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.measure import MeasuredTask


def compute_class_weights(images: Sequence[MeasuredTask], num_classes: int) -> tuple[float, ...]:
    """Compute the square root of the median frequency over that of each class, as the presets for CamVid have it.

    The frequency of a class is the number of its pixels over that of all labelled pixels in the images that have the
    class. Its median over the classes divided by it is SegNet's weight (Eigen and Fergus, ICCV 2015, section 4.3.2);
    the root moderates it. The mean loss does not depend on a common factor. A class in no image has the weight 1.

    Args:
        images: what is measured of each image in a task.
        num_classes: number of classes of the task.
    """
    pixels, around = np.zeros(num_classes), np.zeros(num_classes)
    for image in images:
        present = {label: count for label, count in image.classes.items() if label != IGNORE}
        labelled = sum(present.values())
        for label, count in present.items():
            pixels[label] += count
            around[label] += labelled
    found = pixels > 0
    if not found.any():
        return (1.0,) * num_classes
    frequencies = np.divide(pixels, around, out=np.ones(num_classes), where=found)
    weights = np.where(found, np.sqrt(np.median(frequencies[found]) / frequencies), 1.0)
    return tuple(weights.tolist())
