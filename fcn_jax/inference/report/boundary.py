"""Boundary IU: the overlap of the boundary regions of truth and prediction.

Cheng, Girshick, Dollár, Berg & Kirillov, "Boundary IoU", CVPR 2021. IU of whole regions hides errors at the contours of
large objects, which have few of their pixels there. Boundary IU counts only pixels near contours.
"""

import math

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from scipy import ndimage

from fcn_jax.data.labels import IGNORE

WIDTH = 0.02  # width of the boundary region as a share of the image's diagonal (section 5 of the paper)

ClassMap = UInt8[np.ndarray, "height width"]


def boundary_width(height: int, width: int) -> int:
    """Return the width of the boundary regions of an image in pixels: 2 % of its diagonal, at least 1."""
    return max(round(WIDTH * math.hypot(height, width)), 1)


def find_boundary(class_map: ClassMap, distance: int) -> Bool[np.ndarray, "height width"]:
    """Find the pixels with another class, or the image's border, within a number of pixels along rows and columns.

    These are the boundary regions of all classes at once. That of one class is what an erosion of its mask by a square
    of side 2 * distance + 1 takes away, as in the paper's code.
    """
    # Outside the image lies another class: the constants 0 and 255 differ from each other.
    side = 2 * distance + 1
    lowest = ndimage.minimum_filter(class_map, side, mode="constant", cval=0)
    highest = ndimage.maximum_filter(class_map, side, mode="constant", cval=255)
    return lowest != highest


def count_boundaries(label: ClassMap, prediction: ClassMap, num_classes: int) -> Int64[np.ndarray, "2 classes"]:
    """Count the pixels in the intersection and in the union of the boundary regions of each class.

    Void pixels are void in the prediction too, so that a border of void is a contour of both.

    Args:
        label: the truth, 255 = void.
        prediction: class indices.
        num_classes: number of classes.
    """
    distance = boundary_width(*label.shape)
    predicted = np.where(label == IGNORE, np.uint8(IGNORE), prediction)
    in_truth, in_prediction = find_boundary(label, distance), find_boundary(predicted, distance)

    def count(classes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(classes[chosen & (classes != IGNORE)], minlength=num_classes)

    common = count(label, in_truth & in_prediction & (label == predicted))
    union = count(label, in_truth) + count(predicted, in_prediction) - common
    return np.stack([common, union])
