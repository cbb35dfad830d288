"""Regions of an image: the pixels inside of polygons, and masks that are drawn of regions.

A pixel belongs to a polygon if its centre is inside. Coordinates are continuous: the pixel in row r and column c covers
x from c to c + 1 and y from r to r + 1, so its centre is (c + 0.5, r + 0.5). COCO's and labelme's coordinates are
these. Their own programs decide otherwise for some of the pixels that an outline runs through: COCO's rounds its points
to a fifth of a pixel, and labelme's adds all these pixels.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8


class Region(NamedTuple):
    """Pixels of an image.

    Attributes:
        top: the row of the first pixel of `inside`.
        left: the column of the first pixel of `inside`.
        inside: which pixels of this part of the image belong to the region.
    """

    top: int
    left: int
    inside: Bool[np.ndarray, "rows columns"]


def draw_regions(regions: Iterable[tuple[int, Region]], shape: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """Draw regions, later ones over earlier ones, on a mask of zeros.

    Args:
        regions: pairs of a label and a region, which is within the mask.
        shape: height and width of the mask.
    """
    mask = np.zeros(shape, np.uint8)
    for label, (top, left, inside) in regions:
        height, width = inside.shape
        mask[top : top + height, left : left + width][inside] = label
    return mask


def crop_mask(mask: Bool[np.ndarray, "height width"]) -> Region:
    """Return the pixels of a mask as a region no larger than it has to be."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Region(0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Region(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def fill_polygons(polygons: Sequence[Float64[np.ndarray, "_ 2"]], height: int, width: int) -> Region:
    """Find the pixels that are inside of at least one polygon.

    A polygon that touches or crosses itself has holes: a pixel is inside if a ray from its centre crosses the outline
    an odd number of times. Polygons with fewer than three points have no pixels.

    Args:
        polygons: x and y of the points of each polygon, in pixels, finite, and below 1e9 in size. They may lie outside
            of the image.
        height: rows of the image.
        width: columns of the image.
    """
    points = np.concatenate([np.zeros((0, 2)), *polygons])
    if not len(points):
        return Region(0, 0, np.zeros((0, 0), bool))
    limits = np.array([width, height])
    left, top = np.floor(points.min(axis=0)).clip(0, limits).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0)).clip(0, limits).astype(int).tolist()
    inside = np.zeros((bottom - top, right - left), bool)
    for polygon in polygons:
        inside |= _fill(polygon, top, left, *inside.shape)
    return Region(top, left, inside)


def fill_disc(x: float, y: float, radius: float, height: int, width: int) -> Region:
    """Find the pixels whose centres are inside of a circle.

    Args:
        x: place of its centre from the left, in pixels.
        y: place of its centre from the top, in pixels.
        radius: its radius in pixels.
        height: rows of the image.
        width: columns of the image.
    """
    box = np.array(
        [[x - radius, y - radius], [x + radius, y - radius], [x + radius, y + radius], [x - radius, y + radius]]
    )
    top, left, inside = fill_polygons([box], height, width)
    rows, columns = (np.arange(size) + 0.5 for size in inside.shape)
    return Region(top, left, np.hypot((columns + left - x)[None], (rows + top - y)[:, None]) < radius)


def _fill(polygon: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Find the pixels of a part of the image that are inside of one polygon: an odd number of edges is left of them."""
    ends = np.stack([polygon, np.roll(polygon, -1, axis=0)], axis=1)
    # The upper end comes first, so that an edge that two polygons share is the same number for number.
    order = np.argsort(ends[:, :, 1], axis=1, kind="stable")[..., None]
    (x, y), (low_x, low_y) = np.take_along_axis(ends, order, axis=1).transpose(1, 2, 0)
    # An edge crosses the rows whose centres are in [y, low_y), so that a corner counts once.
    first = np.ceil(y - 0.5 - top).clip(0, height).astype(int)
    counts = np.ceil(low_y - 0.5 - top).clip(0, height).astype(int) - first
    edge = np.repeat(np.arange(len(polygon)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    share = (row + top + 0.5 - y[edge]) / (low_y - y)[edge]
    crossing = x[edge] + share * (low_x - x)[edge]
    column = np.ceil(crossing - 0.5 - left).clip(0, width).astype(int)  # the first pixel whose centre is not left of it
    flips = np.zeros((height, width + 1), bool)
    np.logical_xor.at(flips, (row, column), True)
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]
