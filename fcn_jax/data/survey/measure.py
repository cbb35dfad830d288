"""What is measured of a single image with its label."""

from dataclasses import dataclass

import numpy as np

from fcn_jax.data.dataset import Example
from fcn_jax.data.survey.borders import Borders, measure_borders
from fcn_jax.data.survey.duplicates import hash_appearance, hash_pixels


@dataclass(frozen=True)
class Measured:
    """Counts and hashes of an example; about a kilobyte, whatever its size.

    Attributes:
        split: the split that it belongs to.
        index: its index in the split.
        name: its name.
        size: height and width in pixels.
        classes: number of pixels of each label that occurs; 255 is void.
        borders: where its void lies.
        image: a hash of the pixels of the image.
        label: a hash of the pixels of the label.
        appearance: the difference hash of the image, as two numbers of 64 bits.
    """

    split: str
    index: int
    name: str
    size: tuple[int, int]
    classes: dict[int, int]
    borders: Borders
    image: bytes
    label: bytes
    appearance: tuple[int, int]


def measure(split: str, index: int, example: Example) -> Measured:
    """Measure an example of a split."""
    labels, counts = np.unique_counts(example.label)
    height, width = example.label.shape
    right, down = hash_appearance(example.picture).tolist()
    return Measured(
        split=split,
        index=index,
        name=example.name,
        size=(height, width),
        classes=dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        borders=measure_borders(example.label),
        image=hash_pixels(example.image),
        label=hash_pixels(example.label),
        appearance=(right, down),
    )
