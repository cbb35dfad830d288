"""Connected regions of a class map, as annotations of COCO's format."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8


def describe_regions(class_map: UInt8[np.ndarray, "height width"]) -> Iterator[dict[str, Any]]:
    """Describe each connected region of one class as an annotation, without `id` and `image_id`.

    The pixels of a region are connected by their sides, and so are those of a hole. A region without holes has a
    polygon along the edges of its pixels, in pixels from the upper left corner of the image. One with holes has an
    uncompressed run-length code, because a polygon of COCO's has no holes. pycocotools decodes both to the region's
    pixels.

    Args:
        class_map: the class of each pixel.

    Yields:
        `category_id` (the class plus 1, since COCO's categories begin at 1), `segmentation`, `area` in pixels, `bbox`
        (left, top, width, height) and `iscrowd`, 0.
    """
    from scipy import ndimage  # a seventh of the imports of `predict`, which needs it for this alone

    for label in np.unique(class_map).tolist():
        regions, _ = ndimage.label(class_map == label)  # pyright: ignore[reportGeneralTypeIssues]
        for index, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
            inside = regions[rows, columns] == index
            loops = trace_outlines(inside)
            if len(loops) == 1:
                segmentation: Any = [(loops[0] + [columns.start, rows.start]).ravel().tolist()]
            else:
                segmentation = encode_runs(regions == index)
            yield {
                "category_id": label + 1,
                "segmentation": segmentation,
                "area": int(inside.sum()),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
            }


def trace_outlines(inside: Bool[np.ndarray, "height width"]) -> list[np.ndarray]:
    """Trace the closed lines between the pixels of a region and the others.

    Args:
        inside: whether each pixel belongs to the region.

    Returns:
        The corners (x, y) of each line, int[corners, 2], in pixels; a region whose pixels are connected by their sides
        has one line, and one more for each hole.
    """
    padded = np.pad(inside, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # The region is to the right of each edge: the upper side of a pixel leads right, its right side down, and so on.
    sides = (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    )
    for (down, right), (x, y), (to_x, to_y) in sides:
        beside = padded[1 + down : padded.shape[0] - 1 + down, 1 + right : padded.shape[1] - 1 + right]
        for row, column in np.argwhere(inside & ~beside).tolist():
            following.setdefault((column + x, row + y), []).append((column + to_x, row + to_y))
    lines = []
    while following:
        start = min(following)
        corners, before, here = [start], start, start
        while True:
            after = _turn(before, here, following[here])
            following[here].remove(after)
            if not following[here]:
                del following[here]
            before, here = here, after
            if here == start:
                break
            corners.append(here)
        lines.append(_drop_straight(np.array(corners)))
    return lines


def encode_runs(inside: Bool[np.ndarray, "height width"]) -> dict[str, list[int]]:
    """Encode pixels as COCO's run lengths: numbers of pixels outside and inside by turns, column by column."""
    flat = inside.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0, *changes.tolist(), flat.size]
    counts = [stop - start for start, stop in pairwise(ends)]
    return {"size": list(inside.shape), "counts": [0, *counts] if flat[0] else counts}


def _turn(before: tuple[int, int], here: tuple[int, int], choices: list[tuple[int, int]]) -> tuple[int, int]:
    """Choose the next corner. Where two pixels of the region touch by a corner, turn left, so no line meets itself."""
    left = (here[0] + (here[1] - before[1]), here[1] - (here[0] - before[0]))
    return left if len(choices) > 1 else choices[0]


def _drop_straight(corners: np.ndarray) -> np.ndarray:
    """Leave out the points of a closed line at which it goes straight on."""
    arriving, leaving = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    return corners[(arriving != leaving).any(axis=1)]
