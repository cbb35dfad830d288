"""Score a split: loss, confusion matrix and metrics, every image at its own size."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int64, UInt8

from fcn_jax.data.canvas import Batch
from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import Task, count_classes, split_maps
from fcn_jax.inference.metrics import SUMMARY, Metrics, compute_metrics, confusion_matrix
from fcn_jax.inference.segment import Forward, Scored, Segmented, segment
from fcn_jax.inference.tiles import Tiling
from fcn_jax.runtime.threads import map_in_threads


class TaskScore(NamedTuple):
    """The score of a task.

    Attributes:
        task: the task.
        metrics: computed from `confusion`.
        confusion: number of pixels by (true class, predicted class).
    """

    task: Task
    metrics: Metrics
    confusion: Int64[np.ndarray, "classes classes"]


class Evaluation(NamedTuple):
    """The score of a split.

    Attributes:
        loss: mean cross-entropy over labelled pixels, nats; NaN if there are none. With several tasks it is the sum
            over all of them, divided by the mean number of their labelled pixels.
        tasks: the score of each task.
        num_examples: number of images.
        seconds: time the evaluation took.
        programs: number of canvas sizes, each of which compiles a program.
        ignored: the classes of each task that are left out of its metrics, and whose pixels are not in its confusion
            matrix; (): none.
    """

    loss: float
    tasks: tuple[TaskScore, ...]
    num_examples: int
    seconds: float
    programs: int
    ignored: tuple[tuple[int, ...], ...] = ()

    @property
    def metrics(self) -> Metrics:
        """The metrics of the first task."""
        return self.tasks[0].metrics

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """The confusion matrix of the first task."""
        return self.tasks[0].confusion

    def summary(self) -> dict[str, Any]:
        """Return the values that `metrics.jsonl` stores: loss and metrics, those of further tasks by their names."""
        others = {score.task.name: score.metrics._asdict() for score in self.tasks[1:]}
        return {"loss": self.loss, **self.metrics._asdict(), **others}


def evaluate(
    forward: Forward,
    variables: Any,
    source: Sequence[Example],
    tasks: Sequence[Task],
    batch_size: int,
    workers: int = 4,
    show: Callable[[Example, UInt8[np.ndarray, "height width *tasks"]], None] = lambda example, prediction: None,
    tiling: Tiling | None = None,
) -> Evaluation:
    """Score all images of a split, each at its own size. Hosts share the images and return the same score.

    Args:
        forward: from `segment.make_forward`.
        variables: parameters and batch statistics.
        source: the split.
        tasks: the tasks of the data.
        batch_size: images to compute at once on this host, a multiple of its number of devices.
        workers: number of threads that decode images, and number of threads that count pixels.
        show: called from threads with every image and its class map.
        tiling: from `tiles.plan_tiles`, to compute large images in tiles; None: every image is computed whole.
    """
    began = time.perf_counter()
    counts = count_classes(tasks)
    # The matrices of all tasks in one row of numbers, to add and to exchange.
    confusions = np.zeros(sum(count**2 for count in counts), np.int64)
    sums, canvases = np.zeros(2), set()
    examples = grain.MapDataset.source(source)[jax.process_index() :: jax.process_count()]
    stream = examples.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * workers))

    def record_canvas(variables: Any, batch: Batch) -> Scored:
        canvases.add(batch.label.shape[1:])
        return forward(variables, batch)

    def score(result: Segmented) -> tuple[np.ndarray, float, float]:
        show(result.example, result.class_map)
        maps = (split_maps(array, len(tasks)) for array in (result.example.label, result.class_map))
        matrices = [confusion_matrix(*given) for given in zip(*maps, counts, strict=True)]
        return np.concatenate([matrix.ravel() for matrix in matrices]), result.loss, result.pixels

    results = segment(record_canvas, variables, stream, batch_size, tiling)
    for numbers, loss, pixels in map_in_threads(score, results, workers):
        confusions += numbers
        sums += loss, pixels
    if jax.process_count() > 1:
        # JAX cuts 64-bit numbers to 32 bits, so they are exchanged as pairs of 32-bit words.
        confusions = multihost_utils.process_allgather(confusions.view(np.int32)).view(np.int64).sum(axis=0)
        sums = multihost_utils.process_allgather(sums.view(np.int32)).view(np.float64).sum(axis=0)
    parts = np.split(confusions, np.cumsum([count**2 for count in counts])[:-1])
    matrices = [part.reshape(count, count) for part, count in zip(parts, counts, strict=True)]
    return Evaluation(
        loss=float(sums[0] / sums[1]) if sums[1] else float("nan"),
        tasks=tuple(TaskScore(*scored) for scored in zip(tasks, map(compute_metrics, matrices), matrices, strict=True)),
        num_examples=len(source),
        seconds=time.perf_counter() - began,
        programs=len(canvases),
    )


def ignore_classes(evaluation: Evaluation, ignored: Sequence[Sequence[int]]) -> Evaluation:
    """Leave classes out of the metrics, as `compute_metrics` does. The loss stays that of all labelled pixels.

    Args:
        evaluation: the score of all classes.
        ignored: the classes to leave out of each task.
    """

    def leave_out(score: TaskScore, labels: Sequence[int]) -> TaskScore:
        confusion = score.confusion.copy()
        confusion[list(labels)] = 0
        return TaskScore(score.task, compute_metrics(confusion, labels), confusion)

    tasks = tuple(map(leave_out, evaluation.tasks, ignored))
    return evaluation._replace(tasks=tasks, ignored=tuple(map(tuple, ignored)))


def describe_scores(evaluation: Evaluation) -> Mapping[str, Any]:
    """Return the values that `fcn-jax eval --json` writes. Those of further tasks are under the tasks' names."""
    first, *others = map(_describe_task, evaluation.tasks, _list_ignored(evaluation))
    return {
        "loss": evaluation.loss,
        "num_examples": evaluation.num_examples,
        **first,
        **{score.task.name: values for score, values in zip(evaluation.tasks[1:], others, strict=True)},
    }


def _list_ignored(evaluation: Evaluation) -> list[list[str]]:
    """List the names of the classes of each task that are left out."""
    ignored = evaluation.ignored or ((),) * len(evaluation.tasks)
    return [
        [score.task.class_names[label] for label in labels]
        for score, labels in zip(evaluation.tasks, ignored, strict=True)
    ]


def _describe_task(score: TaskScore, ignored: list[str]) -> dict[str, Any]:
    return {
        **score.metrics._asdict(),
        "num_pixels": int(score.confusion.sum()),
        "class_names": score.task.class_names,
        **({"ignored": ignored} if ignored else {}),
        "confusion": score.confusion,
    }


def format_tables(evaluation: Evaluation) -> str:
    """Format the scores of each task as a table: a line per class, then the four metrics, in percent."""
    return "\n\n".join(map(_format_table, evaluation.tasks, _list_ignored(evaluation)))


def _format_table(score: TaskScore, ignored: list[str]) -> str:
    (task, class_names, *_), metrics, confusion = score
    width = max(len(name) for name in ("frequency_weighted_iu", *class_names))
    lines = [f"{task} task"] if task else []
    lines.append(f"{'class':{width}}  {'IU':>6}  {'accuracy':>8}  {'pixels':>12}")
    pixels = confusion.sum(axis=1)
    for name, iu, accuracy, count in zip(
        class_names, metrics.per_class_iu, metrics.per_class_accuracy, pixels, strict=True
    ):
        lines.append(f"{name:{width}}  {_format_percent(iu):>6}  {_format_percent(accuracy):>8}  {count:>12,}")
    lines.append("")
    for name in SUMMARY:
        lines.append(f"{name:{width}}  {_format_percent(metrics._asdict()[name]):>6}")
    if ignored:
        lines.append(f"ignored: {', '.join(ignored)}; their pixels count as void, and they are left out of the means")
    absent = int(np.isnan(metrics.per_class_iu).sum()) - len(ignored)
    if absent:
        number = "1 class is" if absent == 1 else f"{absent} classes are"
        lines.append(f"{number} in neither truth nor prediction, and left out of mean_iu")
    return "\n".join(lines)


def _format_percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"
