"""Compute class maps of images, each at its own size.

XLA compiles a program for each shape, so images are padded to one of few canvas sizes and computed in batches. The
network masks the padding, so an image has the same class map as without it. Evaluation, prediction and `Segmenter` all
use `segment`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.batches import Batch, place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.layers.backend import compiler_options, count_local_devices, is_cpu
from fcn_jax.models.build import Network
from fcn_jax.models.losses import cross_entropy

# Canvases of up to this many pixels are computed in full batches, larger ones in smaller batches.
AREA = 512 * 512
# Extra pixels to compute for a canvas size before it gets its own program. On two CPU cores, compiling takes as long as
# computing about 1.5 million pixels (VGG16) to 5 million (ResNet34).
WASTE = 8 * AREA

Canvas = tuple[int, int]  # height, width
Forward = Callable[[Any, Batch], tuple[jax.Array, jax.Array, jax.Array]]


class Segmented(NamedTuple):
    """An image with its class map.

    Attributes:
        example: the image and its label.
        class_map: the class of each pixel, of the image's size.
        loss: cross-entropy summed over the labelled pixels of the image's batch, in nats, if it is the first image of
            the batch; 0 for the others.
        pixels: number of labelled pixels of the batch, for its first image; 0 for the others.
    """

    example: Example
    class_map: UInt8[np.ndarray, "height width"]
    loss: float
    pixels: float


def make_forward(model: Network, input_config: InputConfig, labelled: bool = True) -> Forward:
    """Make the jitted function (variables, batch) -> (class maps, summed loss, number of labelled pixels).

    Args:
        model: the network.
        input_config: the colour order, mean and standard deviation that the network expects.
        labelled: whether to compute the loss. If not, loss and number of pixels are 0.

    Returns:
        A function. Its class maps are uint8[batch, height, width], loss and number are float32[].
    """

    @partial(jax.jit, compiler_options=compiler_options(training=False))
    def forward(variables: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        image, label, size = map(jnp.asarray, (batch.image, batch.label, batch.size))
        logits = jnp.asarray(model.apply(variables, normalise(image, input_config), size))
        total, weight = cross_entropy(logits, label) if labelled else (jnp.zeros(()), jnp.zeros(()))
        return logits.argmax(axis=-1).astype(jnp.uint8), total, weight

    return forward


def segment(forward: Forward, variables: Any, examples: Iterable[Example], batch_size: int) -> Iterator[Segmented]:
    """Compute the class map of each example.

    Examples with the same canvas are computed together as soon as there are enough for a batch, so results come in
    another order than the examples. The host prepares the next batch, and the caller uses the last results, while the
    devices compute.

    Args:
        forward: from `make_forward`.
        variables: parameters and batch statistics.
        examples: images with labels; for images alone see `make_unlabelled`.
        batch_size: images to compute at once on this host's devices. Fewer are computed at once if their canvas is
            larger than `AREA`, which bounds the memory.

    Yields:
        A result for each example.
    """
    sharding = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec("data"))
    variables = replicate_locally(variables)
    limit = partial(limit_batch_size, batch_size, count_local_devices())
    last = None
    for canvas, members in _make_batches(examples, limit):
        batch = jax.device_put(place_on_canvas(members, limit(canvas), canvas), sharding)
        results = forward(variables, batch)
        if last:
            yield from _unpack(*last)
        last = members, results
    if last:
        yield from _unpack(*last)


def replicate_locally(variables: Any) -> Any:
    """Copy variables to every device of this host; arrays that are there already are not copied."""
    everywhere = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec())

    def copy(array: jax.Array) -> jax.Array:
        return array if array.sharding == everywhere else jax.device_put(array.addressable_data(0), everywhere)

    return jax.tree.map(copy, variables)


def make_unlabelled(name: str, image: UInt8[np.ndarray, "height width 3"]) -> Example:
    """Make an example of an image without a label: all of it is void."""
    return Example(name, image, np.full(image.shape[:2], IGNORE, np.uint8))


def choose_canvas(height: int, width: int) -> Canvas:
    """Round each side of an image up to 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, ... pixels.

    There are four lengths per doubling, at least 32 pixels apart. Sides longer than 128 grow by at most a quarter, and
    there are 16 lengths up to 1024.
    """

    def round_up(side: int) -> int:
        step = max(32, 1 << max((side - 1).bit_length() - 3, 0))
        return -(-side // step) * step

    return round_up(height), round_up(width)


def default_batch_size(requested: int | None) -> int:
    """Return the number of images to compute at once on this host, a multiple of its number of devices.

    Args:
        requested: rounded up to a multiple; None: one image per device on CPUs, eight on accelerators.
    """
    devices = count_local_devices()
    wanted = requested or devices * (1 if is_cpu() else 8)
    return -(-wanted // devices) * devices


def limit_batch_size(batch_size: int, devices: int, canvas: Canvas) -> int:
    """Return the number of images of this canvas to compute at once, a multiple of the number of devices."""
    fit = batch_size * AREA // max(AREA, canvas[0] * canvas[1])
    return max(fit // devices, 1) * devices


def _make_batches(
    examples: Iterable[Example], limit: Callable[[Canvas], int]
) -> Iterator[tuple[Canvas, list[Example]]]:
    """Group examples by canvas into full batches, then group what is left, largest canvas first.

    A canvas size without a program uses the smallest compiled canvas that holds it and has the same batch size, until
    this has cost `WASTE` pixels. Most canvas sizes of a folder have few images, and compiling for them would take
    longer than computing them.
    """
    waiting: dict[Canvas, list[Example]] = defaultdict(list)
    compiled: list[Canvas] = []
    wasted: Counter[Canvas] = Counter()

    def choose_program(canvas: Canvas) -> Canvas:
        if canvas in compiled:
            return canvas
        larger = [c for c in compiled if _has_room(c, canvas) and limit(c) == limit(canvas)]
        best = min(larger, key=math.prod, default=canvas)
        wasted[canvas] += limit(canvas) * (math.prod(best) - math.prod(canvas))
        if best == canvas or wasted[canvas] > WASTE:
            compiled.append(canvas)
            return canvas
        return best

    for example in examples:
        canvas = choose_canvas(*example.label.shape)
        waiting[canvas].append(example)
        if len(waiting[canvas]) == limit(canvas):
            yield choose_program(canvas), waiting.pop(canvas)
    left = [(canvas, example) for canvas, members in waiting.items() for example in members]
    left.sort(key=lambda pair: -math.prod(pair[0]))
    while left:
        canvas = choose_program(left[0][0])
        taken = [index for index, (own, _) in enumerate(left) if _has_room(canvas, own)][: limit(canvas)]
        yield canvas, [left[index][1] for index in taken]
        left = [pair for index, pair in enumerate(left) if index not in taken]


def _has_room(canvas: Canvas, other: Canvas) -> bool:
    return other[0] <= canvas[0] and other[1] <= canvas[1]


def _unpack(members: list[Example], results: tuple[jax.Array, jax.Array, jax.Array]) -> Iterator[Segmented]:
    maps, total, weight = jax.device_get(results)
    for index, (example, class_map) in enumerate(zip(members, maps, strict=False)):
        height, width = example.label.shape
        first = index == 0
        yield Segmented(example, class_map[:height, :width], float(total) * first, float(weight) * first)
