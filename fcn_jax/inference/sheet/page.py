"""The page of a contact sheet: what its template shows."""

import io
from collections.abc import Sequence
from itertools import starmap
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.measure import Measured
from fcn_jax.data.survey.survey import LabelSurvey, Survey, TaskSurvey
from fcn_jax.data.survey.text import describe_repeats, format_class_weights, format_size
from fcn_jax.data.tasks import Task, join_maps, split_maps
from fcn_jax.inference.html_page import load_template, make_data_uri
from fcn_jax.inference.sheet.choose import PAIRS, PER_SPLIT, choose_per_class
from fcn_jax.inference.spread import choose_evenly
from fcn_jax.inference.visualize import VOID_COLOUR, overlay_tasks

SIDE = 240  # longer side of a small image, in pixels
QUALITY = 82  # of the JPEGs, 1 to 95


class Thumbnail(NamedTuple):
    """A small image beside its labels.

    Attributes:
        image: the image that it shows.
        uri: the picture as an address that holds it.
        width: width of the picture in pixels.
        height: its height in pixels.
        size: width and height of the whole image.
        tasks: for each task its name, and name and share in percent of each label, the largest first.
    """

    image: Measured
    uri: str
    width: int
    height: int
    size: str
    tasks: Sequence[tuple[str, Sequence[tuple[str, float]]]]


class TaskView(NamedTuple):
    """What the page shows of a task.

    Attributes:
        name: name of the task; empty for the only one.
        classes: number, name and colour, as #rrggbb, of each label: all classes, and void if it occurs.
        splits: what is known of the labels of each split, with the number of their pixels.
        rare: the names of the rarest classes, each with images.
    """

    name: str
    classes: Sequence[tuple[int, str, str]]
    splits: Sequence[tuple[str, LabelSurvey, int]]
    rare: Sequence[tuple[str, Sequence[Thumbnail]]]


def render_sheet(dataset: Dataset, survey: Survey) -> str:
    """Write a page of small images with their labels, as HTML without a script or anything outside of it.

    It shows images from all over each split, images with the rarest classes, and images that occur more than once.

    Args:
        dataset: the data set.
        survey: what is known of it.
    """

    def show(images: Sequence[Measured]) -> list[Thumbnail]:
        return [_draw(dataset, survey.tasks, image) for image in images]

    def view(number: int, given: TaskSurvey) -> TaskView:
        return TaskView(
            name=given.task.name,
            classes=_list_labels(given),
            splits=[(name, split, sum(split.pixels.values())) for name, split in given.splits.items()],
            rare=[(name, show(images)) for name, images in choose_per_class(survey, number)],
        )

    return load_template("fcn_jax.inference.sheet", "sheet.html.jinja").render(
        survey=survey,
        tasks=list(starmap(view, enumerate(survey.tasks))),
        format_size=format_size,
        weights=format_class_weights(survey),
        findings=describe_repeats(survey),
        splits=[(name, show(choose_evenly(split.images, PER_SPLIT))) for name, split in survey.splits.items()],
        repeats=[
            (found, [show([one, other]) for one, other, _ in found.pairs[:PAIRS]])
            for found in survey.repeats
            if found.kind == "alike" or found.spoils_scores or found.split == found.other
        ],
    )


def _list_labels(given: TaskSurvey) -> list[tuple[int, str, str]]:
    """List number, name and colour of all classes, and of void if it occurs."""
    colours = {**dict(enumerate(given.task.palette.tolist())), IGNORE: VOID_COLOUR}
    present = {label for split in given.splits.values() for label in split.pixels}
    return [
        (label, name, "#" + bytes(colours[label]).hex())
        for label, name in given.label_names.items()
        if label != IGNORE or label in present
    ]


def _draw(dataset: Dataset, tasks: Sequence[TaskSurvey], image: Measured) -> Thumbnail:
    picture = _draw_small(dataset.source(image.split)[image.index], dataset.tasks)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=QUALITY, subsampling=0)
    return Thumbnail(
        image=image,
        uri=make_data_uri(stream.getvalue(), "jpeg"),
        width=picture.width,
        height=picture.height,
        size=format_size(image.size),
        tasks=[
            (given.task.name, _list_shares(measured.classes, given.label_names))
            for given, measured in zip(tasks, image.tasks, strict=True)
        ],
    )


def _list_shares(counts: dict[int, int], names: dict[int, str]) -> list[tuple[str, float]]:
    """List the name and the share in percent of each label, the largest first."""
    total = sum(counts.values())
    return [(names[label], 100 * count / total) for label, count in sorted(counts.items(), key=lambda item: -item[1])]


def _draw_small(example: Example, tasks: Sequence[Task]) -> Image.Image:
    """Draw an image, and beside it its label of each task over it, scaled so that the longer side has `SIDE`."""
    height, width, *_ = example.label.shape
    factor = SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(example.picture).resize(size, Image.Resampling.BOX)
    maps = [
        np.asarray(Image.fromarray(own).resize(size, Image.Resampling.NEAREST))
        for own in split_maps(example.label, len(tasks))
    ]
    return Image.fromarray(overlay_tasks(np.asarray(small), join_maps(maps), tasks))
