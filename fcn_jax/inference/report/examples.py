"""The best, the median and the worst images of a split, by the mean IU of each."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import count_maps, split_maps
from fcn_jax.inference.report.pictures import Picture, draw_errors, embed_drawing, embed_photograph
from fcn_jax.inference.segment import Forward, segment
from fcn_jax.inference.tiles import Tiling
from fcn_jax.inference.visualize import colourise

EACH = 3  # number of images of each rank


class Subset(Sequence[Example]):
    """Some examples of a split. The name of each is its index in the split, so that results can be told apart."""

    def __init__(self, source: Sequence[Example], indices: Sequence[int]):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: SupportsIndex) -> Example:
        index = self._indices[operator.index(place)]
        return self._source[index]._replace(name=str(index))


class Shown(NamedTuple):
    """An image with its truth, its prediction and its wrong pixels.

    Attributes:
        name: the name of the example.
        mean_iu: mean IU of this image alone, 0 to 1.
        image: the photograph.
        truth: the classes in their colours.
        prediction: the classes in their colours.
        errors: wrong pixels red, right ones white, void grey.
    """

    name: str
    mean_iu: float
    image: Picture
    truth: Picture
    prediction: Picture
    errors: Picture


def rank(scores: Mapping[int, float], each: int = EACH) -> dict[str, list[int]]:
    """Choose the best, the median and the worst images, no image twice.

    Args:
        scores: mean IU of each image by its index; NaN, of an image that is all void, is left out.
        each: greatest number of images of each rank.

    Returns:
        "best" and "worst", beginning with the most extreme one, and "median", in rising order. With fewer than three
        images there is no median; of two images one is the best and one the worst.
    """
    order = sorted((score, index) for index, score in scores.items() if not np.isnan(score))
    indices = [index for _, index in order]
    each = min(each, max(len(indices) // 3, 1))
    best, rest = indices[::-1][:each], indices[: len(indices) - each]
    worst, rest = rest[:each], rest[each:]
    begin = max(len(rest) - each, 0) // 2
    return {"best": best, "median": rest[begin : begin + each], "worst": worst}


def take_first_task(example: Example) -> Example:
    """Return an example with the label of the first task alone."""
    return example._replace(label=split_maps(example.label, count_maps(example.label))[0])


def show_examples(
    source: Sequence[Example],
    ranks: Mapping[str, Sequence[int]],
    scores: Mapping[int, float],
    forward: Forward,
    variables: Any,
    palette: UInt8[np.ndarray, "classes 3"],
    batch_size: int,
    tiling: Tiling | None,
) -> dict[str, list[Shown]]:
    """Segment the chosen images once more, and draw the classes of the first task.

    Args:
        source: the split.
        ranks: from `rank`.
        scores: mean IU of each image by its index.
        forward: from `segment.make_forward`.
        variables: parameters and batch statistics.
        palette: the colour of each class of the first task.
        batch_size: images to compute at once, a multiple of the number of devices.
        tiling: from `tiles.plan_tiles`; None: every image is computed whole.
    """
    chosen = [index for indices in ranks.values() for index in indices]
    drawn = {}
    for result in segment(forward, variables, Subset(source, chosen), batch_size, tiling):
        example = take_first_task(result.example)
        prediction = split_maps(result.class_map, count_maps(result.class_map))[0]
        index = int(example.name)
        drawn[index] = Shown(
            name=source[index].name,
            mean_iu=scores[index],
            image=embed_photograph(example.picture),
            truth=embed_drawing(colourise(example.label, palette)),
            prediction=embed_drawing(colourise(prediction, palette)),
            errors=embed_drawing(draw_errors(example.label, prediction)),
        )
    return {name: [drawn[index] for index in indices] for name, indices in ranks.items()}
