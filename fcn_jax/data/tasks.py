"""Tasks: what a network predicts for each pixel, such as a semantic and a geometric class.

The label or class map of one task is [height, width]. Those of several tasks are one array, [height, width, tasks]. The
scores of several tasks have the classes of all tasks side by side. This module splits and joins both.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from fcn_jax.data.label_map import LabelMap
from fcn_jax.errors import InputError, suggest_nearest


class Task(NamedTuple):
    """A task, and its classes.

    Attributes:
        name: for names of files and values, such as "geometric"; empty for the only task of a data set.
        class_names: the name of each label from 0 on.
        palette: red, green and blue of each class.
        label_map: the labels of the numbers in the data set's masks; None: a run of an older version did not store it.
    """

    name: str
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "classes 3"]
    label_map: LabelMap | None = None


def count_classes(tasks: Iterable[Task]) -> tuple[int, ...]:
    """Return the number of classes of each task."""
    return tuple(len(task.class_names) for task in tasks)


def is_same(some: Sequence[Task], others: Sequence[Task]) -> bool:
    """Return whether tasks have the same names and classes; the rest may differ."""
    return [task[:2] for task in some] == [task[:2] for task in others]


def describe_classes(tasks: Sequence[Task]) -> str:
    """List the classes of all tasks."""
    return "; ".join(f"{task.name}: ".lstrip(": ") + ", ".join(task.class_names) for task in tasks)


def name_scores(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Name the scores of a network: the classes of the first task, then those of the others as TASK/CLASS."""
    first, *others = tasks
    return (*first.class_names, *(f"{task.name}/{name}" for task in others for name in task.class_names))


def find_classes(tasks: Sequence[Task], names: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Find the labels of classes in each task by the names of `name_scores`.

    Raises:
        InputError: there is no class of a name.
    """
    known, names = name_scores(tasks), list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in known]:
        nearest = suggest_nearest(unknown[0], known) or ";"
        raise InputError(f"there is no class {unknown[0]!r}{nearest} the classes are {', '.join(known)}")
    places = sorted(map(known.index, names))
    ends = np.cumsum([0, *count_classes(tasks)]).tolist()
    return tuple(tuple(place - start for place in places if start <= place < end) for start, end in pairwise(ends))


def list_suffixes(tasks: Sequence[Task]) -> list[str]:
    """List what the name of a file or a value ends with for each task: nothing for the first one, _TASK for others."""
    return ["", *(f"_{task.name}" for task in tasks[1:])]


def add_axis(tasks: int) -> tuple[int, ...]:
    """Return the last axis of labels of so many tasks, as a part of their shape."""
    return () if tasks == 1 else (tasks,)


def count_maps(label: Shaped[np.ndarray, "height width *tasks"]) -> int:
    """Return the number of tasks of a label."""
    return 1 if label.ndim == 2 else label.shape[2]


def split_maps(maps: Any, count: int) -> tuple[Any, ...]:
    """Split labels or class maps of `count` tasks, [..., tasks], into one for each task; one task has no such axis."""
    return (maps,) if count == 1 else tuple(maps[..., index] for index in range(count))


def join_maps(maps: Sequence[Any]) -> Any:
    """Join a label or class map for each task into one array, as `split_maps` takes it."""
    return maps[0] if len(maps) == 1 else np.stack(maps, axis=-1)


def split_scores(scores: Any, counts: Sequence[int]) -> tuple[Any, ...]:
    """Split scores or probabilities, [..., classes of all tasks], into those of each task.

    Args:
        scores: a NumPy or JAX array.
        counts: number of classes of each task.
    """
    if len(counts) == 1:
        return (scores,)
    ends = np.cumsum(counts).tolist()
    return tuple(scores[..., start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))


def stack_label(label: UInt8[np.ndarray, "height width *tasks"]) -> UInt8[np.ndarray, "rows width"]:
    """Put the labels of all tasks below each other, so that one grey picture holds them."""
    return label if label.ndim == 2 else np.concatenate(np.moveaxis(label, -1, 0))


def unstack_label(stacked: UInt8[np.ndarray, "rows width"], height: int) -> UInt8[np.ndarray, "{height} width *tasks"]:
    """Undo `stack_label` for an image of this height."""
    if len(stacked) == height:
        return stacked
    return np.ascontiguousarray(np.moveaxis(stacked.reshape(-1, height, stacked.shape[1]), 0, -1))
