"""Class maps of images at their own sizes, and the score of a split.

Images are put on few canvases (`canvas_of`, `_batches`), so that few programs are compiled; the network keeps what lies
outside an image from reaching it, so the results are those of each image alone. `evaluate` and `predict` share this
path.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64, UInt8

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.batches import Batch, place
from fcn_jax.data.dataset import Example
from fcn_jax.inference.metrics import Metrics, compute_metrics, confusion_matrix
from fcn_jax.layers.conv import compiler_options
from fcn_jax.models.build import Network
from fcn_jax.models.losses import cross_entropy
from fcn_jax.runtime.threads import map_in_threads

AREA = 512 * 512  # pixels of a canvas up to which a whole batch is computed at once
# Pixels computed in vain until a canvas gets a program of its own: on two cores compiling takes as long as computing
# about 1.5 million pixels (VGG16) to 5 (ResNet34).
WASTE = 8 * AREA

Canvas = tuple[int, int]
Forward = Callable[[Any, Batch], tuple[jax.Array, jax.Array, jax.Array]]
Segmented = tuple[Example, UInt8[np.ndarray, "height width"], float, float]


class Evaluation(NamedTuple):
    """The score of a split.

    Attributes:
        loss: mean cross-entropy over labelled pixels, nats.
        metrics: of `confusion`.
        confusion: pixels by (true class, predicted class).
        num_examples: images scored.
        seconds: what it took.
        programs: canvases used, each compiled once.
    """

    loss: float
    metrics: Metrics
    confusion: Int64[np.ndarray, "classes classes"]
    num_examples: int
    seconds: float
    programs: int

    def summary(self) -> dict[str, Any]:
        """What `metrics.jsonl` has of an evaluation."""
        return {"loss": self.loss, **self.metrics._asdict()}


def make_forward(model: Network, input_config: InputConfig, labelled: bool = True) -> Forward:
    """The jitted (variables, batch) -> (class map uint8[batch, height, width], summed loss, labelled pixels).

    Args:
        model: the network.
        input_config: what it takes pixels to be.
        labelled: whether there are labels to score; without them loss and pixels are 0, and cost nothing.
    """

    @partial(jax.jit, compiler_options=compiler_options(training=False))
    def forward(variables: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        image, label, size = map(jnp.asarray, (batch.image, batch.label, batch.size))
        logits = jnp.asarray(model.apply(variables, normalise(image, input_config), size))
        total, weight = cross_entropy(logits, label) if labelled else (jnp.zeros(()), jnp.zeros(()))
        return logits.argmax(axis=-1).astype(jnp.uint8), total, weight

    return forward


def canvas_of(height: int, width: int) -> Canvas:
    """The canvas for an image: each side rounded up to one of 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, ...

    Four steps to a doubling, at least 32 pixels each: at most a quarter is added to a side longer than 128, and all
    sides up to 1024 make do with 16 lengths.
    """

    def rounded(side: int) -> int:
        step = max(32, 1 << max((side - 1).bit_length() - 3, 0))
        return -(-side // step) * step

    return rounded(height), rounded(width)


def segment(forward: Forward, variables: Any, examples: Iterable[Example], batch_size: int) -> Iterator[Segmented]:
    """Class maps, each of its image's size, with the batch's summed loss and weight on the first of a batch.

    Images of one canvas are computed together, as soon as `batch_size` of them are there (fewer where they are larger
    than `AREA`, to bound the memory), so the order changes. While the device computes, the host prepares the next batch
    and the caller has the results of the last one.
    """
    sharding = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec("data"))
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    variables = jax.device_put(jax.tree.map(lambda array: array.addressable_data(0), variables), everywhere)
    under_way = None
    limit = partial(images_at_once, batch_size, jax.local_device_count())
    for canvas, members in _batches(examples, limit):
        batch = jax.device_put(place(members, limit(canvas), canvas), sharding)
        results = forward(variables, batch)
        if under_way:
            yield from _unpack(*under_way)
        under_way = members, results
    if under_way:
        yield from _unpack(*under_way)


def evaluate(
    forward: Forward,
    variables: Any,
    source: Sequence[Example],
    num_classes: int,
    batch_size: int,
    workers: int = 4,
    show: Callable[[Example, UInt8[np.ndarray, "height width"]], None] = lambda example, prediction: None,
) -> Evaluation:
    """Scores all images of a split, each at its own size; several hosts share the work.

    Args:
        forward: from `make_forward`.
        variables: parameters and batch statistics.
        source: the split.
        num_classes: of the data.
        batch_size: images at once on this host, a multiple of its devices.
        workers: threads that decode, and as many that count.
        show: called with every image and its class map, in threads.
    """
    began = time.perf_counter()
    confusion = np.zeros((num_classes, num_classes), np.int64)
    sums, canvases = np.zeros(2), set()
    examples = grain.MapDataset.source(source)[jax.process_index() :: jax.process_count()]
    stream = examples.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * workers))

    def noted(variables: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        canvases.add(batch.label.shape[1:])
        return forward(variables, batch)

    def score(result: Segmented) -> tuple[np.ndarray, float, float]:
        example, prediction, total, weight = result
        show(example, prediction)
        return confusion_matrix(example.label, prediction, num_classes), total, weight

    for counts, total, weight in map_in_threads(score, segment(noted, variables, stream, batch_size), workers):
        confusion += counts
        sums += total, weight
    if jax.process_count() > 1:
        # As pairs of 32-bit words: JAX would cut 64-bit numbers to 32.
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


def to_json(evaluation: Evaluation, class_names: tuple[str, ...]) -> Mapping[str, Any]:
    """What `eval --json` writes."""
    return {
        **evaluation.summary(),
        "num_examples": evaluation.num_examples,
        "num_pixels": int(evaluation.confusion.sum()),
        "class_names": class_names,
        "confusion": evaluation.confusion,
    }


def table(evaluation: Evaluation, class_names: tuple[str, ...]) -> str:
    """The scores a person reads: one line a class, then the four metrics."""
    metrics = evaluation.metrics
    width = max(len(name) for name in ("frequency_weighted_iu", *class_names))
    lines = [f"{'class':{width}}  {'IU':>6}  {'accuracy':>8}  {'pixels':>12}"]
    pixels = evaluation.confusion.sum(axis=1)
    for name, iu, accuracy, count in zip(
        class_names, metrics.per_class_iu, metrics.per_class_accuracy, pixels, strict=True
    ):
        lines.append(f"{name:{width}}  {_percent(iu):>6}  {_percent(accuracy):>8}  {count:>12,}")
    lines.append("")
    for name, value in list(metrics._asdict().items())[:4]:  # the rest is per class
        lines.append(f"{name:{width}}  {_percent(value):>6}")
    absent = int(np.isnan(metrics.per_class_iu).sum())
    if absent:
        lines.append(f"{absent} classes are in neither truth nor prediction and are left out of mean_iu")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def images_at_once(batch_size: int, devices: int, canvas: Canvas) -> int:
    """Images of this canvas to compute at once: a multiple of the devices."""
    fit = batch_size * AREA // max(AREA, canvas[0] * canvas[1])
    return max(fit // devices, 1) * devices


def _batches(examples: Iterable[Example], limit: Callable[[Canvas], int]) -> Iterator[tuple[Canvas, list[Example]]]:
    """Full batches as they come, then what is left, the largest first and together with what has room beside it.

    A canvas that has no program yet borrows the smallest one that holds it, until that has cost `WASTE` pixels: most
    canvases of a folder are those of a few images, and are not worth compiling for.
    """
    waiting: dict[Canvas, list[Example]] = defaultdict(list)
    compiled: list[Canvas] = []
    wasted: Counter[Canvas] = Counter()

    def chosen(canvas: Canvas) -> Canvas:
        if canvas in compiled:
            return canvas
        larger = [c for c in compiled if _holds(c, canvas) and limit(c) == limit(canvas)]
        best = min(larger, key=math.prod, default=canvas)
        wasted[canvas] += limit(canvas) * (math.prod(best) - math.prod(canvas))
        if best == canvas or wasted[canvas] > WASTE:
            compiled.append(canvas)
            return canvas
        return best

    for example in examples:
        canvas = canvas_of(*example.label.shape)
        waiting[canvas].append(example)
        if len(waiting[canvas]) == limit(canvas):
            yield chosen(canvas), waiting.pop(canvas)
    left = [(canvas, example) for canvas, members in waiting.items() for example in members]
    left.sort(key=lambda pair: -math.prod(pair[0]))
    while left:
        canvas = chosen(left[0][0])
        taken = [index for index, (own, _) in enumerate(left) if _holds(canvas, own)][: limit(canvas)]
        yield canvas, [left[index][1] for index in taken]
        left = [pair for index, pair in enumerate(left) if index not in taken]


def _holds(canvas: Canvas, other: Canvas) -> bool:
    return other[0] <= canvas[0] and other[1] <= canvas[1]


def _unpack(members: list[Example], results: tuple[jax.Array, jax.Array, jax.Array]) -> Iterator[Segmented]:
    maps, total, weight = jax.device_get(results)
    for index, (example, class_map) in enumerate(zip(members, maps, strict=False)):
        height, width = example.label.shape
        first = index == 0
        yield example, class_map[:height, :width], float(total) * first, float(weight) * first
