"""Which images a contact sheet shows."""

from collections import Counter
from collections.abc import Sequence

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.measure import Measured
from fcn_jax.data.survey.survey import Survey

Chosen = Sequence[tuple[str, Sequence[Measured]]]
"""Names of classes, each with its images."""

PER_SPLIT = 12
CLASSES, PER_CLASS = 6, 4
PAIRS = 4  # of repeated images, for each two splits


def choose_per_class(survey: Survey, number: int) -> Chosen:
    """Choose, for each of the classes with the fewest pixels in all splits, the images with most of these.

    Args:
        survey: what is known of the data set.
        number: the place of the classes' task among its tasks.
    """
    images = [image for split in survey.splits.values() for image in split.images]
    given = survey.tasks[number]
    totals: Counter[int] = Counter()
    for split in given.splits.values():
        totals.update(split.pixels)
    rarest = sorted((label for label in totals if label != IGNORE), key=lambda label: (totals[label], label))
    return [(given.label_names[label], _find_most(images, number, label)) for label in rarest[:CLASSES]]


def _find_most(images: Sequence[Measured], number: int, label: int) -> list[Measured]:
    """Find different images with the most pixels of a label; an image may be in several splits."""
    counts = [(image.tasks[number].classes.get(label, 0), image) for image in images]
    different: dict[bytes, Measured] = {}
    for _, image in sorted((pair for pair in counts if pair[0]), key=lambda pair: -pair[0]):
        different.setdefault(image.image, image)
        if len(different) == PER_CLASS:
            break
    return list(different.values())
