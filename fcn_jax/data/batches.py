"""From a data source to padded uint8 batches on the devices.

Which images make up step t, in which order, and which part of a large image is handed over, depends on (seed, t) alone:
not on the number of threads or hosts, nor on where a run was resumed, nor on where decoded images are kept.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int32, UInt8

from fcn_jax.config import Config
from fcn_jax.data import augment
from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.errors import InputError

CHUNK = 64 << 20  # bytes that go to the devices at once

# (index of an image among those placed, its (height, width)) -> the row and column that are handed over first
Origin = Callable[[int, tuple[int, int]], tuple[int, int]]


class Batch(NamedTuple):
    """Images of several sizes on one canvas, each at its top left.

    Attributes:
        image: RGB, 0 outside the image.
        label: class indices, `IGNORE` outside the image.
        size: rows and columns of each image; 0 for a place without an image.
        origin: the row and column of each image that its canvas begins with, where images may be larger than the
            canvas; None: they are all whole.
    """

    image: UInt8[np.ndarray | jax.Array, "batch height width 3"]
    label: UInt8[np.ndarray | jax.Array, "batch height width"]
    size: Int32[np.ndarray | jax.Array, "batch 2"]
    origin: Int32[np.ndarray | jax.Array, "batch 2"] | None = None


def place(examples: Iterable[Example], count: int, canvas: tuple[int, int], origin: Origin | None = None) -> Batch:
    """Puts up to `count` examples on canvases of `canvas` = (height, width), or their parts from `origin` on."""
    batch = Batch(
        image=np.zeros((count, *canvas, 3), np.uint8),
        label=np.full((count, *canvas), IGNORE, np.uint8),
        size=np.zeros((count, 2), np.int32),
        origin=None if origin is None else np.zeros((count, 2), np.int32),
    )
    for index, example in enumerate(examples):
        size = example.label.shape
        top, left = (0, 0) if origin is None else origin(index, size)
        part = (slice(top, top + canvas[0]), slice(left, left + canvas[1])) if origin else ...
        label = example.label[part]
        height, width = label.shape
        batch.image[index, :height, :width] = example.image[part]
        batch.label[index, :height, :width] = label
        batch.size[index] = size
        if batch.origin is not None:
            batch.origin[index] = top, left
    return batch


def train_canvas(max_size: tuple[int, int], config: Config) -> tuple[int, int]:
    """Height and width of training canvases: of the largest image, or of what a crop looks at if that is less."""
    longest = augment.reach(config.augment)
    return min(max_size[0], longest), min(max_size[1], longest)


def train_batches(
    source: Sequence[Example], max_size: tuple[int, int], config: Config, first_step: int, sharding: NamedSharding
) -> Iterator[Batch]:
    """Endless batches from `first_step` on, each epoch in a new order, sharded over the devices.

    Of an image that is longer than any crop can reach, only the part is handed over that the crop of this step looks
    at (`augment.origin`): what comes out of augmentation is the same, and neither memory nor time depends on how large
    the images are, once they are decoded.

    Args:
        source: the training split.
        max_size: height and width that hold every image of it.
        config: a resolved configuration.
        first_step: where to begin.
        sharding: over the first axis.
    """
    share = config.batch_size // jax.process_count()
    first = jax.process_index() * share
    mine = slice(first, first + share)
    canvas = train_canvas(max_size, config)
    origins = (lambda step: None) if canvas == max_size else _origins(config, canvas, first)
    shard = partial(jax.tree.map, partial(jax.make_array_from_process_local_data, sharding))

    if config.data.decoded == "device":
        held = hold(source, max_size, sharding, config.workers)
        sizes = [(int(height), int(width)) for height, width in jax.device_get(held.size)]
        take = jax.jit(partial(_take, canvas=canvas), out_shardings=sharding)

        def load(step: int, indices: np.ndarray) -> Any:
            indices, origin = indices[mine].astype(np.int32), origins(step)
            at = origin and np.array([origin(i, sizes[index]) for i, index in enumerate(indices)], np.int32)
            return indices, at

        def finish(loaded: Any) -> Batch:
            return take(held, *shard(loaded))
    else:

        def load(step: int, indices: np.ndarray) -> Any:
            return place((source[int(index)] for index in indices[mine]), share, canvas, origins(step))

        def finish(loaded: Any) -> Batch:
            return shard(loaded)

    order = grain.MapDataset.range(len(source)).seed(config.seed).shuffle().repeat().batch(config.batch_size)
    options = grain.ReadOptions(num_threads=config.workers, prefetch_buffer_size=config.workers)
    yield from map(finish, order.map_with_index(load)[first_step:].to_iter_dataset(options))


def hold(source: Sequence[Example], canvas: tuple[int, int], sharding: NamedSharding, workers: int) -> Batch:
    """A whole split on the devices, each image on a canvas, the same on every device of the mesh of `sharding`.

    A copy a device: a step then takes its images without any communication.

    Args:
        source: the split.
        canvas: height and width that hold every image of it.
        sharding: names the devices.
        workers: threads that decode.

    Raises:
        InputError: it needs more than half of the memory that is free; the other half is the step's.
    """
    require_room(len(source), canvas)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    replicate = partial(jax.tree.map, partial(jax.make_array_from_process_local_data, everywhere))

    @partial(jax.jit, out_shardings=everywhere)
    def empty() -> Batch:
        shape = (len(source), *canvas)
        return Batch(
            jnp.zeros((*shape, 3), jnp.uint8), jnp.zeros(shape, jnp.uint8), jnp.zeros((len(source), 2), jnp.int32)
        )

    @partial(jax.jit, donate_argnums=0, out_shardings=everywhere)
    def write(held: Batch, part: Batch, start: jax.Array) -> Batch:
        return jax.tree.map(lambda to, x: jax.lax.dynamic_update_slice_in_dim(to, x, start, 0), held, part)

    held, count = empty(), max(1, CHUNK // (4 * canvas[0] * canvas[1]))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), count):
            indices = range(start, min(start + count, len(source)))
            part = place(pool.map(source.__getitem__, indices), len(indices), canvas)
            held = write(held, replicate(part), start)
    return held


def require_room(count: int, canvas: tuple[int, int]) -> None:
    """Raises InputError unless `count` images and labels on canvases fit into half of each device's free memory."""
    need = count * canvas[0] * canvas[1] * 4
    free = min(map(_free, jax.local_devices()))
    if need > free / 2:
        raise InputError(
            f"{count} decoded images on canvases of {canvas[1]}x{canvas[0]} need {need / 1e9:.1f} GB on each device, "
            f"and half of the {free / 1e9:.1f} GB that are free there are kept for training; "
            "give --data.decoded disk, or never"
        )


def _free(device: Any) -> float:
    """Memory that is free on a device, bytes, infinite where nothing tells; a CPU's devices share the host's."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    available = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(available) / jax.local_device_count()


def _take(held: Batch, indices: jax.Array, origin: jax.Array | None, *, canvas: tuple[int, int]) -> Batch:
    """The batch that `place` makes of these images."""
    if origin is None:
        return jax.tree.map(lambda array: array[indices], held)

    def cut(array: Any, index: jax.Array, at: jax.Array) -> jax.Array:
        start = (index, at[0], at[1], *(0 for _ in array.shape[3:]))
        return jax.lax.dynamic_slice(array, start, (1, *canvas, *array.shape[3:]))[0]

    image, label = (jax.vmap(partial(cut, array))(indices, origin) for array in (held.image, held.label))
    return Batch(image, label, held.size[indices], origin)


def _origins(config: Config, canvas: tuple[int, int], first: int) -> Callable[[int], Origin]:
    """For each step `augment.origin` of this host's images, which are those of the batch from `first` on.

    Computed on the host's processor, image by image, as their sizes become known: 0.1 ms each.
    """
    host = jax.local_devices(backend="cpu")[0]

    @jax.jit
    def compute(step: jax.Array, index: jax.Array, size: jax.Array) -> jax.Array:
        keys, _ = augment.step_keys(config.seed, step, config.batch_size)
        return augment.origin(keys[index], size, jnp.array(canvas), config.augment)

    def origin(step: int, index: int, size: tuple[int, int]) -> tuple[int, int]:
        with jax.default_device(host):
            top, left = np.asarray(compute(np.int32(step), np.int32(first + index), np.array(size, np.int32)))
        return int(top), int(left)

    return lambda step: partial(origin, step)
