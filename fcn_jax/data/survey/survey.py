"""One pass over all images of a data set, and what follows from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fcn_jax.data.dataset import Dataset
from fcn_jax.data.decoded import THREADS
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.survey.borders import REACH, Borders
from fcn_jax.data.survey.class_weights import compute_class_weights
from fcn_jax.data.survey.measure import Measured, MeasuredTask, measure
from fcn_jax.data.survey.repeats import Repeats, find_repeats
from fcn_jax.data.tasks import Task
from fcn_jax.runtime.progress import show_progress
from fcn_jax.runtime.threads import map_in_threads


@dataclass(frozen=True)
class Sizes:
    """Sizes of images, each as height and width; they are compared by their number of pixels."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    distinct: int


@dataclass(frozen=True)
class SplitSurvey:
    """What is known of a split.

    Attributes:
        images: its images in order.
        sizes: their sizes.
    """

    images: Sequence[Measured]
    sizes: Sizes


@dataclass(frozen=True)
class LabelSurvey:
    """What is known of the labels of a split in one task.

    Attributes:
        pixels: number of pixels of each label that occurs; 255 is void.
        images_with: number of images with each label that occurs.
        borders: where void lies.
    """

    pixels: Mapping[int, int]
    images_with: Mapping[int, int]
    borders: Borders


@dataclass(frozen=True)
class TaskSurvey:
    """What is known of a task.

    Attributes:
        task: the task.
        splits: what is known of the labels of each split.
        class_weights: a factor for each class.
    """

    task: Task
    splits: Mapping[str, LabelSurvey]
    class_weights: tuple[float, ...]

    @property
    def label_names(self) -> dict[int, str]:
        """The name of each label, void included."""
        return {**dict(enumerate(self.task.class_names)), IGNORE: "void"}


@dataclass(frozen=True)
class Survey:
    """What is known of a data set.

    Attributes:
        name: name of the data set.
        splits: what is known of the images of each split.
        tasks: what is known of the labels of each task.
        weights_from: the split that the weights of the classes are from.
        repeats: the images that occur more than once.
    """

    name: str
    splits: Mapping[str, SplitSurvey]
    tasks: Sequence[TaskSurvey]
    weights_from: str
    repeats: Sequence[Repeats]


def survey_dataset(dataset: Dataset, train_split: str) -> Survey:
    """Read all images of a data set, and count what they have.

    Only the images that are being read are in memory, two for each thread.

    Args:
        dataset: the data set.
        train_split: the split that weights of classes are computed from; the first one if there is no such split.

    Raises:
        InputError: the prepared data has been damaged.
    """
    splits: dict[str, list[Measured]] = {split: [] for split in dataset.splits}
    with show_progress(f"checking {dataset.name}", sum(dataset.splits.values()), "images") as advance:
        for measured in _measure_all(dataset):
            splits[measured.split].append(measured)
            advance(1)
    weights_from = train_split if train_split in splits else next(iter(splits))
    return Survey(
        name=dataset.name,
        splits={split: summarise_images(images) for split, images in splits.items()},
        tasks=[summarise_task(task, number, splits, weights_from) for number, task in enumerate(dataset.tasks)],
        weights_from=weights_from,
        repeats=find_repeats(splits, train_split),
    )


def summarise_images(images: Sequence[Measured]) -> SplitSurvey:
    """Summarise the images of a split, of which there is at least one."""
    sizes = sorted((image.size for image in images), key=lambda size: (size[0] * size[1], size))
    return SplitSurvey(images, Sizes(sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1], len(set(sizes))))


def summarise_task(task: Task, number: int, splits: Mapping[str, Sequence[Measured]], weights_from: str) -> TaskSurvey:
    """Summarise the labels of a task.

    Args:
        task: the task.
        number: its place among the tasks of the data set.
        splits: the images of each split, of which there is at least one.
        weights_from: the split that the weights of its classes are computed from.
    """
    measured = {split: [image.tasks[number] for image in images] for split, images in splits.items()}
    return TaskSurvey(
        task=task,
        splits={split: _add_up(images) for split, images in measured.items()},
        class_weights=compute_class_weights(measured[weights_from], len(task.class_names)),
    )


def _add_up(images: Sequence[MeasuredTask]) -> LabelSurvey:
    pixels, images_with = dict.fromkeys(range(256), 0), dict.fromkeys(range(256), 0)
    for image in images:
        for label, count in image.classes.items():
            pixels[label] += count
            images_with[label] += 1
    return LabelSurvey(
        pixels={label: count for label, count in pixels.items() if count},
        images_with={label: count for label, count in images_with.items() if count},
        borders=Borders(*(sum(counts) for counts in zip(*(image.borders for image in images), strict=True))),
    )


def to_values(survey: Survey) -> dict[str, Any]:
    """Convert a survey to values for a JSON file. Shares are 0 to 1, or None where there is nothing to divide by.

    The values of further tasks are under the tasks' names.
    """
    first, *others = (_list_task(given, survey.weights_from) for given in survey.tasks)
    return {
        "name": survey.name,
        **first,
        "splits": {
            name: {"images": len(split.images), "sizes": split.sizes, **first["splits"][name]}
            for name, split in survey.splits.items()
        },
        "repeats": [_list_repeats(repeats) for repeats in survey.repeats],
        **{given.task.name: values for given, values in zip(survey.tasks[1:], others, strict=True)},
    }


def _measure_all(dataset: Dataset) -> Iterator[Measured]:
    for split in dataset.splits:
        source = dataset.source(split)
        yield from map_in_threads(
            lambda index, split=split, source=source: measure(split, index, source[index]), range(len(source)), THREADS
        )


def _list_task(given: TaskSurvey, weights_from: str) -> dict[str, Any]:
    return {
        "class_names": given.task.class_names,
        "splits": {name: _list_labels(split, given.label_names) for name, split in given.splits.items()},
        "class_weights": {
            "split": weights_from,
            "formula": "square root of the median frequency of the classes over that of each; "
            "frequency: pixels of the class over labelled pixels of the images that have it",
            "weights": given.class_weights,
        },
    }


def _list_labels(split: LabelSurvey, names: Mapping[int, str]) -> dict[str, Any]:
    total, borders = sum(split.pixels.values()), split.borders
    return {
        "labels": [
            {
                "label": label,
                "name": names[label],
                "pixels": count,
                "share": count / total,
                "images": split.images_with[label],
            }
            for label, count in split.pixels.items()
        ],
        "void": {
            "pixels": borders.void,
            "share": borders.void / total,
            f"share_within_{REACH}_pixels_of_borders": _divide(borders.near, borders.void),
            "share_of_borders_covered": _divide(borders.covered, borders.length),
        },
    }


def _list_repeats(repeats: Repeats) -> dict[str, Any]:
    return {
        **repeats._asdict(),
        "pairs": [
            {"name": one.name, "other": other.name, "bits": bits, "same_label": one.label == other.label}
            for one, other, bits in repeats.pairs
        ],
    }


def _divide(part: int, whole: int) -> float | None:
    """Return part / whole, or None if there is nothing to divide by."""
    return part / whole if whole else None
