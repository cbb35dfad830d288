"""Test-time augmentation: average the probabilities of the classes over mirrored and resized views of each image."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import join_maps, split_scores
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import AREA, Forward, Segmented, make_unlabelled, segment
from fcn_jax.inference.tiles import Tiling
from fcn_jax.runtime.threads import map_in_threads


@dataclass(frozen=True)
class Views:
    """The views of an image that are computed: the image at each scale, and with `flip` its mirror image, too.

    Attributes:
        scales: factors on height and width, above 0, each once.
        flip: whether every scale is also computed mirrored left to right.

    Raises:
        InputError: there is no scale, one is not above 0 and finite, or one is given twice.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not (self.scales and all(0 < scale < math.inf for scale in self.scales)):
            raise InputError(f"scales are {self.scales}; give at least one factor, each above 0 and finite")
        if len(set(self.scales)) < len(self.scales):
            raise InputError(f"scales are {self.scales}; give each factor once, so that each counts once")


FLIP_AND_SCALES = Views(scales=(0.75, 1.0, 1.25), flip=True)


def segment_views(
    forward: Forward,
    variables: Any,
    examples: Iterable[Example],
    batch_size: int,
    views: Views | None,
    tiling: Tiling | None = None,
    workers: int = 4,
    counts: Sequence[int] = (),
    sizes: Sequence[tuple[int, int]] = (),
) -> Iterator[Segmented]:
    """Compute the mean probabilities over the views of each image, and the class that is the likeliest by them.

    Images are resized with a bilinear filter, antialiased where they become smaller. The probabilities of a view are
    brought back to the image's size likewise, then averaged. Images are taken in groups of about `batch_size * AREA`
    pixels, so only the probabilities of a group are in memory.

    Args:
        forward: from `segment.make_forward`, with `probabilities=True` if there are views.
        variables: parameters and batch statistics.
        examples: images; with views their labels are not used.
        batch_size: views to compute at once, as in `segment.segment`.
        views: the views of each image; None: the image alone, which gives the results of `segment.segment`.
        tiling: from `tiles.plan_tiles`, to compute large views in tiles; None: every view is computed whole.
        workers: number of threads that resize.
        counts: number of classes of each task; (): there is one task.
        sizes: height and width of each image, as in `segment.segment`; views are grouped without them.

    Yields:
        A result for each example; with views its loss is 0.
    """
    if views is None:
        yield from segment(forward, variables, examples, batch_size, tiling, sizes)
        return
    for group in _group(examples, batch_size * AREA):
        yield from _average(forward, variables, group, batch_size, views, tiling, workers, counts)


def resize_image(
    image: Shaped[np.ndarray, "_ _ channels"], height: int, width: int
) -> Shaped[np.ndarray, "height width channels"]:
    """Resize an image with a bilinear filter, which is as wide as the step between pixels if it becomes smaller."""

    def resize(array: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))

    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return resize(image)
    planes = [resize(image[..., index].astype(np.float32)) for index in range(image.shape[-1])]
    return np.stack(planes, axis=-1).round().astype(image.dtype)


def _group(examples: Iterable[Example], pixels: int) -> Iterator[list[Example]]:
    """Divide examples into groups that end with the first one that brings them to a number of pixels."""
    group: list[Example] = []
    for example in examples:
        group.append(example)
        if sum(member.label.size for member in group) >= pixels:
            yield group
            group = []
    if group:
        yield group


def _average(
    forward: Forward,
    variables: Any,
    group: list[Example],
    batch_size: int,
    views: Views,
    tiling: Tiling | None,
    workers: int,
    counts: Sequence[int],
) -> Iterator[Segmented]:
    # Mirror images come one after the other, because they have the same canvas.
    mirrored = (False, True) if views.flip else (False,)
    chosen = [(index, scale, flip) for scale in views.scales for index in range(len(group)) for flip in mirrored]

    def make_view(number: int) -> Example:
        index, scale, flip = chosen[number]
        height, width = (max(1, round(scale * side)) for side in group[index].label.shape)
        image = resize_image(group[index].image, height, width)
        return make_unlabelled(str(number), image[:, ::-1] if flip else image)

    sums: dict[int, np.ndarray] = {}
    missing = [len(chosen) // len(group)] * len(group)
    for result in segment(forward, variables, map(make_view, range(len(chosen))), batch_size, tiling):
        index, _, flip = chosen[int(result.example.name)]
        shares = result.probabilities
        assert shares is not None, "the forward pass gives no probabilities"
        shape = group[index].label.shape
        total = sums.setdefault(index, np.zeros((shares.shape[-1], *shape), np.float32))
        _add(shares[:, ::-1] if flip else shares, total, workers)
        missing[index] -= 1
        if not missing[index]:
            total = sums.pop(index)
            mean = np.moveaxis(total, 0, -1) / np.float32(len(chosen) // len(group))
            parts = split_scores(np.moveaxis(total, 0, -1), counts or (len(total),))
            class_map = join_maps([part.argmax(axis=-1).astype(np.uint8) for part in parts])
            yield Segmented(group[index], class_map, 0.0, 0.0, np.ascontiguousarray(mean, np.float16))


def _add(shares: np.ndarray, total: Float32[np.ndarray, "classes height width"], workers: int) -> None:
    """Add the probabilities of a view, resized to the image's size, to the sum; threads take the classes."""

    def add_class(index: int) -> None:
        plane = Image.fromarray(shares[..., index].astype(np.float32))
        total[index] += np.asarray(plane.resize(total.shape[:0:-1], Image.Resampling.BILINEAR))

    for _ in map_in_threads(add_class, range(len(total)), workers):
        pass
