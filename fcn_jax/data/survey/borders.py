"""Where void lies: along the borders between classes, or elsewhere."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from fcn_jax.data.labels import IGNORE

REACH = 3  # pixels on each side of a border that count as near it; void in VOC's masks is about five pixels wide


class Borders(NamedTuple):
    """Counts of void pixels and of borders. Those of several masks add up.

    Attributes:
        void: number of void pixels.
        near: number of void pixels within `REACH` pixels of a border.
        length: number of pairs of neighbouring pixels (beside or below each other) with different classes.
        covered: number of those pairs in which a pixel is void.
    """

    void: int
    near: int
    length: int
    covered: int


def measure_borders(label: UInt8[np.ndarray, "height width"]) -> Borders:
    """Count the void pixels of a mask, the borders between its classes, and how far they coincide.

    Void is first filled with the nearest class, so a band of void between two classes has a border in its middle. A
    mask without any class has no border.
    """
    void = label == IGNORE
    if void.all():
        return Borders(void.size, 0, 0, 0)
    filled = _fill(label, void) if void.any() else label
    below, beside = filled[1:] != filled[:-1], filled[:, 1:] != filled[:, :-1]
    covered = (below & (void[1:] | void[:-1])).sum() + (beside & (void[:, 1:] | void[:, :-1])).sum()
    border = np.zeros(label.shape, np.uint8)
    for pairs, one, other in ((below, border[1:], border[:-1]), (beside, border[:, 1:], border[:, :-1])):
        one |= pairs
        other |= pairs
    near = void & (ndimage.maximum_filter(border, 2 * REACH - 1, mode="constant") > 0)
    return Borders(int(void.sum()), int(near.sum()), int(below.sum() + beside.sum()), int(covered))


def _fill(
    label: UInt8[np.ndarray, "height width"], void: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width"]:
    """Give each void pixel the class that is nearest in a straight line."""
    indices = ndimage.distance_transform_edt(void, return_distances=False, return_indices=True)
    return label[tuple(np.asarray(indices))]
