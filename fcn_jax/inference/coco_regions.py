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
                segmentation = encode_runs(inside, (rows.start, columns.start), class_map.shape)
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
    for start in sorted(following):
        while start in following:  # several lines may begin in a corner
            lines.append(_drop_straight(np.array(_follow(start, following))))
    return lines


def _follow(start: tuple[int, int], following: dict[tuple[int, int], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Follow a closed line from a corner, take its edges away, and return its corners."""
    corners, before, here = [start], start, start
    while True:
        after = _turn(before, here, following[here])
        following[here].remove(after)
        if not following[here]:
            del following[here]
        before, here = here, after
        if here == start:
            return corners
        corners.append(here)


def encode_runs(
    inside: Bool[np.ndarray, "rows columns"], origin: tuple[int, int], shape: tuple[int, ...]
) -> dict[str, list[int]]:
    """Encode pixels as COCO's run lengths: numbers of pixels outside and inside by turns, column by column.

    Args:
        inside: whether each pixel of a part of the image belongs to the region; at least one does.
        origin: row and column of the image at which the part begins.
        shape: height and width of the image.
    """
    height, width = shape
    steps = np.diff(np.pad(inside.astype(np.int8), ((1, 1), (0, 0))), axis=0).T
    begins, ends = (
        (origin[1] + column) * height + origin[0] + row for column, row in (np.nonzero(steps == way) for way in (1, -1))
    )
    apart = begins[1:] != ends[:-1]  # a run may go on at the top of the next column
    changes = np.stack([begins[np.append(True, apart)], ends[np.append(apart, True)]], axis=1).ravel().tolist()
    stops = [0, *changes, *([height * width] if changes[-1] < height * width else [])]
    return {"size": [height, width], "counts": [stop - start for start, stop in pairwise(stops)]}


def _turn(before: tuple[int, int], here: tuple[int, int], choices: list[tuple[int, int]]) -> tuple[int, int]:
    """Choose the next corner. Where two pixels of the region touch by a corner, turn left, so no line meets itself."""
    left = (here[0] + (here[1] - before[1]), here[1] - (here[0] - before[0]))
    return left if len(choices) > 1 else choices[0]


def _drop_straight(corners: np.ndarray) -> np.ndarray:
    """Leave out the points of a closed line at which it goes straight on."""
    arriving, leaving = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    return corners[(arriving != leaving).any(axis=1)]
