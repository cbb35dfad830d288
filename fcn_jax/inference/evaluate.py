"""Score a split: loss, confusion matrix and metrics, every image at its own size."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int64, UInt8

from fcn_jax.data.batches import Batch
from fcn_jax.data.dataset import Example
from fcn_jax.inference.metrics import Metrics, compute_metrics, confusion_matrix
from fcn_jax.inference.segment import Forward, Scored, Segmented, segment
from fcn_jax.inference.tiles import Tiling
from fcn_jax.runtime.threads import map_in_threads


class Evaluation(NamedTuple):
    """The score of a split.

    Attributes:
        loss: mean cross-entropy over labelled pixels, nats; NaN if there are none.
        metrics: computed from `confusion`.
        confusion: number of pixels by (true class, predicted class).
        num_examples: number of images.
        seconds: time the evaluation took.
        programs: number of canvas sizes, each of which compiles a program.
    """

    loss: float
    metrics: Metrics
    confusion: Int64[np.ndarray, "classes classes"]
    num_examples: int
    seconds: float
    programs: int

    def summary(self) -> dict[str, Any]:
        """Return the values that `metrics.jsonl` stores."""
        return {"loss": self.loss, **self.metrics._asdict()}


def evaluate(
    forward: Forward,
    variables: Any,
    source: Sequence[Example],
    num_classes: int,
    batch_size: int,
    workers: int = 4,
    show: Callable[[Example, UInt8[np.ndarray, "height width"]], None] = lambda example, prediction: None,
    tiling: Tiling | None = None,
) -> Evaluation:
    """Score all images of a split, each at its own size. Hosts share the images and return the same score.

    Args:
        forward: from `segment.make_forward`.
        variables: parameters and batch statistics.
        source: the split.
        num_classes: number of classes of the data.
        batch_size: images to compute at once on this host, a multiple of its number of devices.
        workers: number of threads that decode images, and number of threads that count pixels.
        show: called from threads with every image and its class map.
        tiling: from `tiles.plan_tiles`, to compute large images in tiles; None: every image is computed whole.
    """
    began = time.perf_counter()
    confusion = np.zeros((num_classes, num_classes), np.int64)
    sums, canvases = np.zeros(2), set()
    examples = grain.MapDataset.source(source)[jax.process_index() :: jax.process_count()]
    stream = examples.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * workers))

    def record_canvas(variables: Any, batch: Batch) -> Scored:
        canvases.add(batch.label.shape[1:])
        return forward(variables, batch)

    def score(result: Segmented) -> tuple[np.ndarray, float, float]:
        show(result.example, result.class_map)
        return confusion_matrix(result.example.label, result.class_map, num_classes), result.loss, result.pixels

    results = segment(record_canvas, variables, stream, batch_size, tiling)
    for counts, loss, pixels in map_in_threads(score, results, workers):
        confusion += counts
        sums += loss, pixels
    if jax.process_count() > 1:
        # JAX cuts 64-bit numbers to 32 bits, so they are exchanged as pairs of 32-bit words.
        confusion = multihost_utils.process_allgather(confusion.view(np.int32)).view(np.int64).sum(axis=0)
        sums = multihost_utils.process_allgather(sums.view(np.int32)).view(np.float64).sum(axis=0)
    return Evaluation(
        loss=float(sums[0] / sums[1]) if sums[1] else float("nan"),
        metrics=compute_metrics(confusion),
        confusion=confusion,
        num_examples=len(source),
        seconds=time.perf_counter() - began,
        programs=len(canvases),
    )


def describe_scores(evaluation: Evaluation, class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the values that `fcn-jax eval --json` writes."""
    return {
        **evaluation.summary(),
        "num_examples": evaluation.num_examples,
        "num_pixels": int(evaluation.confusion.sum()),
        "class_names": class_names,
        "confusion": evaluation.confusion,
    }


def format_table(evaluation: Evaluation, class_names: tuple[str, ...]) -> str:
    """Format the scores as a table: a line per class, then the four metrics, in percent."""
    metrics = evaluation.metrics
    width = max(len(name) for name in ("frequency_weighted_iu", *class_names))
    lines = [f"{'class':{width}}  {'IU':>6}  {'accuracy':>8}  {'pixels':>12}"]
    pixels = evaluation.confusion.sum(axis=1)
    for name, iu, accuracy, count in zip(
        class_names, metrics.per_class_iu, metrics.per_class_accuracy, pixels, strict=True
    ):
        lines.append(f"{name:{width}}  {_format_percent(iu):>6}  {_format_percent(accuracy):>8}  {count:>12,}")
    lines.append("")
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"):
        lines.append(f"{name:{width}}  {_format_percent(metrics._asdict()[name]):>6}")
    absent = int(np.isnan(metrics.per_class_iu).sum())
    if absent:
        lines.append(f"{absent} classes are in neither truth nor prediction and are left out of mean_iu")
    return "\n".join(lines)


def _format_percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"
