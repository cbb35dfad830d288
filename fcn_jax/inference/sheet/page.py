"""The page of a contact sheet: what its template shows."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.measure import Measured
from fcn_jax.data.survey.survey import Survey
from fcn_jax.data.survey.text import describe_repeats, format_class_weights, format_size
from fcn_jax.inference.html_page import load_template, make_data_uri
from fcn_jax.inference.sheet.choose import PAIRS, PER_SPLIT, choose_per_class, spread
from fcn_jax.inference.visualize import VOID_COLOUR, overlay

SIDE = 240  # longer side of a small image, in pixels
QUALITY = 82  # of the JPEGs, 1 to 95


class Thumbnail(NamedTuple):
    """A small image beside its label.

    Attributes:
        image: the image that it shows.
        uri: the picture as an address that holds it.
        width: width of the picture in pixels.
        height: its height in pixels.
        size: width and height of the whole image.
        classes: name and share in percent of each label, the largest first.
    """

    image: Measured
    uri: str
    width: int
    height: int
    size: str
    classes: Sequence[tuple[str, float]]


def render_sheet(dataset: Dataset, survey: Survey) -> str:
    """Write a page of small images with their labels, as HTML without a script or anything outside of it.

    It shows images from all over each split, images with the rarest classes, and images that occur more than once.

    Args:
        dataset: the data set.
        survey: what is known of it.
    """
    names = {**dict(enumerate(survey.class_names)), IGNORE: "void"}
    colours = {**dict(enumerate(dataset.palette.tolist())), IGNORE: VOID_COLOUR}

    def show(images: Sequence[Measured]) -> list[Thumbnail]:
        return [_draw(dataset, image, names) for image in images]

    present = sorted({label for split in survey.splits.values() for label in split.pixels} | set(names) - {IGNORE})
    return load_template("fcn_jax.inference.sheet", "sheet.html.jinja").render(
        survey=survey,
        classes=[(label, names[label], "#" + bytes(colours[label]).hex()) for label in present],
        totals={name: sum(split.pixels.values()) for name, split in survey.splits.items()},
        format_size=format_size,
        weights=format_class_weights(survey),
        findings=describe_repeats(survey),
        splits=[(name, show(spread(split.images, PER_SPLIT))) for name, split in survey.splits.items()],
        rare=[(name, show(images)) for name, images in choose_per_class(survey)],
        repeats=[
            (found, [show([one, other]) for one, other, _ in found.pairs[:PAIRS]])
            for found in survey.repeats
            if found.kind == "alike" or found.spoils_scores or found.split == found.other
        ],
    )


def _draw(dataset: Dataset, image: Measured, names: Mapping[int, str]) -> Thumbnail:
    picture = _draw_small(dataset.source(image.split)[image.index], dataset.palette)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=QUALITY, subsampling=0)
    total = sum(image.classes.values())
    return Thumbnail(
        image=image,
        uri=make_data_uri(stream.getvalue(), "jpeg"),
        width=picture.width,
        height=picture.height,
        size=format_size(image.size),
        classes=[
            (names[label], 100 * count / total)
            for label, count in sorted(image.classes.items(), key=lambda item: -item[1])
        ],
    )


def _draw_small(example: Example, palette: np.ndarray) -> Image.Image:
    """Draw an image at the left and its label over it at the right, scaled so that the longer side has `SIDE`."""
    height, width = example.label.shape
    factor = SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(example.picture).resize(size, Image.Resampling.BOX)
    label = Image.fromarray(example.label).resize(size, Image.Resampling.NEAREST)
    both = np.concatenate([np.asarray(small), overlay(np.asarray(small), np.asarray(label), palette)], axis=1)
    return Image.fromarray(both)
