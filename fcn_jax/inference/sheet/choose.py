"""Which images a contact sheet shows."""

from collections.abc import Sequence

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.measure import Measured
from fcn_jax.data.survey.survey import Survey

Chosen = Sequence[tuple[str, Sequence[Measured]]]
"""Headings, each with its images."""

PER_SPLIT = 12
CLASSES, PER_CLASS = 6, 4
PAIRS = 4  # of repeated images, for each two splits


def spread(images: Sequence[Measured], count: int) -> list[Measured]:
    """Choose images at even distances, from the first to the last. Films change slowly, so the first ones say little.

    Args:
        images: all images.
        count: number of images to choose, at least 2; all if there are fewer.
    """
    if len(images) <= count:
        return list(images)
    return [images[place * (len(images) - 1) // (count - 1)] for place in range(count)]


def choose_per_class(survey: Survey) -> Chosen:
    """Choose, for each of the classes with the fewest pixels in all splits, the images with most of these."""
    images = [image for split in survey.splits.values() for image in split.images]
    totals: dict[int, int] = {}
    for image in images:
        for label, count in image.classes.items():
            totals[label] = totals.get(label, 0) + count
    rarest = sorted((label for label in totals if label != IGNORE), key=lambda label: (totals[label], label))
    return [(survey.class_names[label], _find_most(images, label)) for label in rarest[:CLASSES]]


def _find_most(images: Sequence[Measured], label: int) -> list[Measured]:
    """Find different images with the most pixels of a label; an image may be in several splits."""
    having = sorted((image for image in images if label in image.classes), key=lambda image: -image.classes[label])
    different: dict[bytes, Measured] = {}
    for image in having:
        different.setdefault(image.image, image)
        if len(different) == PER_CLASS:
            break
    return list(different.values())
