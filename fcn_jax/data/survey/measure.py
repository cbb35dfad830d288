"""What is measured of a single image with its label."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.dataset import Example
from fcn_jax.data.survey.borders import Borders, measure_borders
from fcn_jax.data.survey.duplicates import hash_appearance, hash_pixels
from fcn_jax.data.tasks import count_maps, split_maps


class MeasuredTask(NamedTuple):
    """What is measured of an image's label in one task.

    Attributes:
        classes: number of pixels of each label that occurs; 255 is void.
        borders: where its void lies.
    """

    classes: dict[int, int]
    borders: Borders


@dataclass(frozen=True)
class Measured:
    """Counts and hashes of an example; about a kilobyte, whatever its size.

    Attributes:
        split: the split that it belongs to.
        index: its index in the split.
        name: its name.
        size: height and width in pixels.
        tasks: what is measured of its label in each task.
        image: a hash of the pixels of the image.
        label: a hash of the pixels of the label, of all tasks.
        appearance: the difference hash of the image, as two numbers of 64 bits.
    """

    split: str
    index: int
    name: str
    size: tuple[int, int]
    tasks: tuple[MeasuredTask, ...]
    image: bytes
    label: bytes
    appearance: tuple[int, int]


def measure(split: str, index: int, example: Example) -> Measured:
    """Measure an example of a split."""
    height, width, *_ = example.label.shape
    right, down = hash_appearance(example.picture).tolist()
    return Measured(
        split=split,
        index=index,
        name=example.name,
        size=(height, width),
        tasks=tuple(map(_measure_task, split_maps(example.label, count_maps(example.label)))),
        image=hash_pixels(example.image),
        label=hash_pixels(example.label),
        appearance=(right, down),
    )


def _measure_task(label: UInt8[np.ndarray, "height width"]) -> MeasuredTask:
    labels, counts = np.unique_counts(label)
    return MeasuredTask(dict(zip(labels.tolist(), counts.tolist(), strict=True)), measure_borders(label))
