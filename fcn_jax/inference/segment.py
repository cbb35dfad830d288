"""Compute class maps of images, and the probabilities of the classes, each image at its own size.

XLA compiles a program for each shape, so images are padded to one of few canvas sizes and computed in batches. The
network masks the padding, so an image has the same class map as without it. Large images are computed in tiles, and
their class maps put together. Evaluation, prediction and `Segmenter` all use `segment`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float16, Float32, UInt8

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.canvas import Batch, place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.data.inputs import Pixels
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import add_axis
from fcn_jax.inference.tiles import Canvas, Tile, Tiling, choose_canvas, cut_image
from fcn_jax.layers.backend import count_local_devices, is_cpu, jit_options
from fcn_jax.models.build import Network
from fcn_jax.models.tasks import choose_classes, compute_probabilities, count_by_task, sum_cross_entropy
from fcn_jax.runtime.traced import keep_traced

# Canvases of up to this many pixels are computed in full batches, larger ones in smaller batches.
AREA = 512 * 512
# Extra pixels to compute for a canvas size before it gets its own program. On two CPU cores, compiling takes as long as
# computing about 1.5 million pixels (VGG16) to 5 million (ResNet34).
WASTE = 8 * AREA
# Pixels of the images whose tiles wait for others of their canvas: with 3 bytes for colours and 2 for label and class
# map, 0.7 GB.
HELD = 512 * AREA


class Scored(NamedTuple):
    """What a forward pass computes of a batch.

    Attributes:
        class_map: uint8[batch, height, width], the class of each pixel; of several tasks [batch, height, width, tasks].
        loss: float32[], cross-entropy summed over labelled pixels and tasks, in nats.
        pixels: float32[], number of labelled pixels, in the mean over the tasks.
        probabilities: float16[batch, height, width, classes], the softmax of the logits, 0 to 1, of all tasks side by
            side; None: not computed.
    """

    class_map: jax.Array
    loss: jax.Array
    pixels: jax.Array
    probabilities: jax.Array | None = None


Forward = Callable[[Any, Batch], Scored]


class Segmented(NamedTuple):
    """An image with its class map.

    Attributes:
        example: the image and its label.
        class_map: the class of each pixel, of the image's size; of several tasks [height, width, tasks].
        loss: cross-entropy summed over labelled pixels and tasks, in nats. That of a whole batch is given with the
            image of the batch's first tile, so that the values of all images add up to that of all their pixels.
        pixels: number of labelled pixels, given with the same image as their loss.
        probabilities: the probability of each class at each pixel, 0 to 1; None: the forward pass computes none.
    """

    example: Example
    class_map: UInt8[np.ndarray, "height width *tasks"]
    loss: float
    pixels: float
    probabilities: Float16[np.ndarray, "height width classes"] | None = None


def make_forward(
    model: Network, input_config: InputConfig, labelled: bool = True, probabilities: bool = False
) -> Forward:
    """Make the jitted function (variables, batch) -> `Scored`.

    Args:
        model: the network.
        input_config: the colour order, mean and standard deviation that the network expects.
        labelled: whether to compute the loss. If not, loss and number of pixels are 0.
        probabilities: whether to compute the probabilities of the classes. They take two bytes per pixel and class,
            class maps one byte per pixel.
    """
    counts = count_by_task(model)

    def forward(variables: Any, batch: Batch) -> Scored:
        logits, label = compute_logits(model, input_config, variables, batch)
        loss, pixels = sum_cross_entropy(logits, label, counts) if labelled else (jnp.zeros(()), jnp.zeros(()))
        shares = compute_probabilities(logits, counts).astype(jnp.float16) if probabilities else None
        return Scored(choose_classes(logits, counts), loss, pixels, shares)

    kept = keep_traced(forward, model, input_config, labelled, probabilities)
    return jax.jit(kept, **jit_options(training=False))


def compute_logits(
    model: Network, input_config: InputConfig, variables: Any, batch: Batch
) -> tuple[Float32[Array, "batch height width classes"], UInt8[Array, "batch height width *tasks"]]:
    """Compute the logits of a batch, whose labels are returned beside them; arguments as in `make_forward`."""
    image, label, size, _, origin = jax.tree.map(jnp.asarray, batch)
    return jnp.asarray(model.apply(variables, normalise(image, input_config), size, origin=origin)), label


def segment(
    forward: Forward,
    variables: Any,
    examples: Iterable[Example],
    batch_size: int,
    tiling: Tiling | None = None,
    sizes: Sequence[tuple[int, int]] = (),
) -> Iterator[Segmented]:
    """Compute the class map of each example.

    Images and tiles with the same canvas are computed together as soon as there are enough for a batch, so results come
    in another order than the examples. The host prepares the next batch, and the caller uses the last results, while
    the devices compute.

    Args:
        forward: from `make_forward`.
        variables: parameters and batch statistics.
        examples: images with labels; for images alone see `make_unlabelled`.
        batch_size: images to compute at once on this host's devices. Fewer are computed at once if their canvas is
            larger than `AREA`, which bounds the memory.
        tiling: from `tiles.plan_tiles`, to compute large images in tiles, which bounds the memory for any size; None:
            every image is computed whole.
        sizes: height and width of each example, so that few images of several sizes share a program; (): they are not
            known beforehand.

    Yields:
        A result for each example.
    """
    tiles = (tile for index, example in enumerate(examples) for tile in cut_image(index, example, tiling))
    return _put_together(_compute(forward, variables, tiles, batch_size, _share_canvas(sizes, tiling)))


def replicate_locally(variables: Any) -> Any:
    """Copy variables to every device of this host; arrays that are there already are not copied."""
    everywhere = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec())

    def copy(array: jax.Array) -> jax.Array:
        return array if array.sharding == everywhere else jax.device_put(array.addressable_data(0), everywhere)

    return jax.tree.map(copy, variables)


def make_unlabelled(name: str, image: Pixels, tasks: int = 1) -> Example:
    """Make an example of an image without a label: all of it is void, in each of so many tasks."""
    return Example(name, image, np.full((*image.shape[:2], *add_axis(tasks)), IGNORE, np.uint8))


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


def _share_canvas(sizes: Sequence[tuple[int, int]], tiling: Tiling | None = None) -> Canvas | None:
    """Choose the smallest canvas with room for each of a few images, so that one program computes all of them.

    Args:
        sizes: height and width of each image.
        tiling: as in `segment`.

    Returns:
        The canvas; None if it takes more than `WASTE` extra pixels, or if an image is cut into tiles.
    """
    if not sizes:
        return None
    canvases = [choose_canvas(*size, tiling=tiling) for size in sizes]
    shared = max(rows for rows, _ in canvases), max(columns for _, columns in canvases)
    whole = all(_has_room(canvas, size) for canvas, size in zip(canvases, sizes, strict=True))
    fits = whole and (tiling is None or math.prod(shared) <= tiling.canvas_side**2)
    extra = len(sizes) * math.prod(shared) - sum(map(math.prod, canvases))
    return shared if fits and extra <= WASTE else None


class _Part(NamedTuple):
    """A tile with the class map and the probabilities of its inside; loss and pixels are those of `Segmented`."""

    tile: Tile
    class_map: UInt8[np.ndarray, "height width *tasks"]
    loss: float
    pixels: float
    probabilities: Float16[np.ndarray, "height width classes"] | None


def _compute(
    forward: Forward, variables: Any, tiles: Iterable[Tile], batch_size: int, shared: Canvas | None
) -> Iterator[_Part]:
    """Compute the class map of each tile."""
    sharding = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), PartitionSpec("data"))
    variables = replicate_locally(variables)
    limit = partial(limit_batch_size, batch_size, count_local_devices())
    last = None
    for canvas, members in _make_batches(tiles, limit, shared):
        batch = jax.device_put(_place_tiles(members, limit(canvas), canvas), sharding)
        results = forward(variables, batch)
        if last:
            yield from _unpack(*last)
        last = members, results
    if last:
        yield from _unpack(*last)


def _put_together(parts: Iterable[_Part]) -> Iterator[Segmented]:
    """Copy what the tiles give into the arrays of their images, and yield each image when it is complete."""
    begun: dict[int, Segmented] = {}
    missing: dict[int, int] = {}
    for (example, index, count, *_, inside), class_map, loss, pixels, probabilities in parts:
        if index not in begun:
            shape, missing[index] = example.label.shape[:2], count
            room = None if probabilities is None else np.empty((*shape, probabilities.shape[-1]), probabilities.dtype)
            begun[index] = Segmented(example, np.empty((*shape, *class_map.shape[2:]), np.uint8), 0.0, 0.0, room)
        whole = begun[index]
        whole.class_map[inside] = class_map
        if whole.probabilities is not None:
            whole.probabilities[inside] = probabilities
        begun[index] = whole._replace(loss=whole.loss + loss, pixels=whole.pixels + pixels)
        missing[index] -= 1
        if not missing[index]:
            del missing[index]
            yield begun.pop(index)


def _make_batches(
    tiles: Iterable[Tile], limit: Callable[[Canvas], int], shared: Canvas | None = None
) -> Iterator[tuple[Canvas, list[Tile]]]:
    """Group tiles by canvas into full batches, then group what is left, largest canvas first.

    A canvas size without a program uses the smallest compiled canvas that holds it and has the same batch size, until
    this has cost `WASTE` pixels. Most canvas sizes of a folder have few images, and compiling for them would take
    longer than computing them. The program of a `shared` canvas counts as compiled from the beginning.

    Tiles that wait keep their images in memory. When these have more than `HELD` pixels, all that wait are grouped.
    """
    waiting: dict[Canvas, list[Tile]] = defaultdict(list)
    compiled: list[Canvas] = [shared] if shared else []
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

    def group_waiting() -> Iterator[tuple[Canvas, list[Tile]]]:
        left = [tile for members in waiting.values() for tile in members]
        waiting.clear()
        left.sort(key=lambda tile: -math.prod(tile.canvas))
        while left:
            canvas = choose_program(left[0].canvas)
            taken = [index for index, tile in enumerate(left) if _has_room(canvas, tile.canvas)][: limit(canvas)]
            yield canvas, [left[index] for index in taken]
            left = [tile for index, tile in enumerate(left) if index not in taken]

    for tile in tiles:
        canvas = tile.canvas
        waiting[canvas].append(tile)
        if len(waiting[canvas]) == limit(canvas):
            yield choose_program(canvas), waiting.pop(canvas)
        elif _count_held(waiting.values()) > HELD:
            yield from group_waiting()
    yield from group_waiting()


def _count_held(groups: Iterable[list[Tile]]) -> int:
    """Count the pixels of the images of tiles."""
    held = {tile.index: math.prod(tile.example.label.shape[:2]) for group in groups for tile in group}
    return sum(held.values())


def _has_room(canvas: Canvas, other: Canvas) -> bool:
    return other[0] <= canvas[0] and other[1] <= canvas[1]


def _place_tiles(tiles: list[Tile], count: int, canvas: Canvas) -> Batch:
    """Put tiles with their margins on canvases; the margins are void, so that each label counts once."""
    batch = place_on_canvas([tile.example for tile in tiles], count, canvas, [tile.origin for tile in tiles])
    for tile, label in zip(tiles, batch.label, strict=False):
        inside = _find_inside(tile)
        kept = label[inside].copy()
        label[:] = IGNORE
        label[inside] = kept
    return batch


def _find_inside(tile: Tile) -> tuple[slice, slice]:
    """Return the rows and columns of a tile's canvas whose class map the tile gives."""
    rows, columns = (slice(s.start - o, s.stop - o) for s, o in zip(tile.inside, tile.origin, strict=True))
    return rows, columns


def _unpack(tiles: list[Tile], results: Scored) -> Iterator[_Part]:
    scored = jax.device_get(results)
    for index, tile in enumerate(tiles):
        first, inside = index == 0, _find_inside(tile)
        class_map, loss, pixels = scored.class_map[index][inside], float(scored.loss), float(scored.pixels)
        probabilities = None if scored.probabilities is None else scored.probabilities[index][inside]
        yield _Part(tile, class_map, loss * first, pixels * first, probabilities)
