"""Read a split as padded batches of integers on the devices.

The images of a step, their order, and the random changes to them are a function of (seed, step) alone. The number of
threads or hosts does not change them, nor does the step at which a run is resumed, nor the place of decoded images.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Int32, Integer, UInt8
from numpy.typing import DTypeLike

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.augment import Changes, Numbers, draw_changes, draw_numbers, find_origin, place_crop, reach
from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import add_axis, count_maps
from fcn_jax.errors import InputError
from fcn_jax.layers.backend import count_local_devices
from fcn_jax.runtime.host_memory import read_free_memory

CHUNK = 64 << 20  # bytes that are sent to the devices at once


class Batch(NamedTuple):
    """Images of several sizes on canvases of one size, each at the top left.

    Attributes:
        image: the channels of the inputs, as in `Example`; 0 outside the image.
        label: class indices, `IGNORE` outside the image; of several tasks [batch, height, width, tasks].
        size: rows and columns of each whole image; 0 for a place without an image.
        changes: the random changes to each image in training.
        origin: the row and column of each image at which its canvas begins, if images may be larger than the canvas;
            None: the canvas holds each whole image.
    """

    image: Integer[np.ndarray | jax.Array, "batch height width channels"]
    label: UInt8[np.ndarray | jax.Array, "batch height width *tasks"]
    size: Int32[np.ndarray | jax.Array, "batch 2"]
    changes: Changes | None = None
    origin: Int32[np.ndarray | jax.Array, "batch 2"] | None = None


def make_empty_batch(
    count: int, canvas: tuple[int, int], channels: int = 3, dtype: DTypeLike = np.uint8, tasks: int = 1
) -> Batch:
    """Make a batch of `count` canvases of (height, width) without images, for labels of a number of tasks."""
    return Batch(
        image=np.zeros((count, *canvas, channels), dtype),
        label=np.full((count, *canvas, *add_axis(tasks)), IGNORE, np.uint8),
        size=np.zeros((count, 2), np.int32),
    )


def place_on_canvas(
    examples: Iterable[Example],
    count: int,
    canvas: tuple[int, int],
    origins: Sequence[tuple[int, int]] | None = None,
) -> Batch:
    """Put 1 to `count` examples on canvases of (height, width).

    Args:
        examples: images with labels, of the same number of channels and tasks, and of one type.
        count: number of canvases.
        canvas: height and width of a canvas.
        origins: row and column of each example at which its canvas begins; None: all canvases hold whole images, and
            the batch has no `origin`.
    """
    examples = iter(examples)
    first = next(examples)
    channels = first.image.shape[-1] if first.image.ndim == 3 else 3
    dtype = np.uint16 if first.image.dtype == np.uint16 else np.uint8
    batch = make_empty_batch(count, canvas, channels, dtype, count_maps(first.label))
    examples = itertools.chain([first], examples)
    for index, (example, origin) in enumerate(zip(examples, origins or itertools.repeat((0, 0)), strict=False)):
        _put(batch, index, example, origin)
    if origins is None:
        return batch
    origin = np.zeros_like(batch.size)
    origin[: len(origins)] = origins
    return batch._replace(origin=origin)


def _put(batch: Batch, index: int, example: Example, origin: tuple[int, int] = (0, 0)) -> None:
    """Put an example, or the part of it from `origin` on that fits, on a canvas of a batch.

    Raises:
        InputError: image and label are of other types than the batch has, or not of one size.
    """
    channels, dtype, shape = batch.image.shape[-1], batch.image.dtype, example.label.shape[:2]
    if example.label.ndim != batch.label.ndim - 1 or example.image.shape != (*shape, channels):
        raise InputError(
            f"{example.name} has an image of shape {example.image.shape} and a label of shape {example.label.shape}; "
            f"they must be [height, width, {channels}] and [height, width"
            f"{''.join(f', {tasks}' for tasks in batch.label.shape[3:])}]"
        )
    if example.image.dtype != dtype or example.label.dtype != np.uint8:  # others would be cut to 0..255 silently
        raise InputError(
            f"{example.name} has an image of {example.image.dtype} and a label of {example.label.dtype}; they must be "
            f"{dtype}, the samples of the image, and uint8, classes"
        )
    (top, left), (rows, columns) = origin, batch.label.shape[1:3]
    label = example.label[top : top + rows, left : left + columns]
    height, width = label.shape[:2]
    batch.image[index, :height, :width] = example.image[top : top + rows, left : left + columns]
    batch.label[index, :height, :width] = label
    batch.size[index] = shape


def train_canvas(max_size: tuple[int, int], config: Config) -> tuple[int, int]:
    """Choose height and width of training canvases: those of the largest image, but no more than a crop can cover."""
    longest = reach(config.augment)
    return min(max_size[0], longest), min(max_size[1], longest)


def train_batches(
    source: Sequence[Example],
    max_size: tuple[int, int],
    config: Config,
    options: RunOptions,
    first_step: int,
    sharding: NamedSharding,
) -> Iterator[Batch]:
    """Yield batches from `first_step` on without end, each epoch in a new order, sharded over the devices.

    Of an image that is larger than a crop can cover, only the part that the crop of this step covers is sent to the
    devices. The augmented images are the same. Once decoded, large images cost no more memory or time than small ones.

    Args:
        source: the training split.
        max_size: the largest height and the largest width of its images.
        config: configuration with every value set (`fill_config`).
        options: options with every interval set (`fill_options`).
        first_step: number of steps taken before the first batch.
        sharding: sharding of batches over the first axis.

    Raises:
        InputError: with `decoded` "device", the split needs more than half of the free memory.
    """
    assert config.batch_size is not None
    batch_size, given = config.batch_size, config.model.input_or_default
    share = batch_size // jax.process_count()
    own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)  # this host's places in the batch
    canvas = train_canvas(max_size, config)
    cuts = canvas != max_size
    shard = partial(jax.tree.map, partial(jax.make_array_from_process_local_data, sharding))
    tasks = count_maps(source[0].label)

    if options.data.decoded == "device":
        resident = load_on_devices(source, max_size, sharding, options.workers)
        sizes = np.asarray(jax.device_get(resident.size))
        take = jax.jit(partial(_take, canvas=canvas), out_shardings=sharding)

        def load(step: int, indices: np.ndarray) -> Any:
            indices = indices[own].astype(np.int32)
            changes = draw_changes(config.seed, step, sizes[indices], own.start, batch_size, config.augment)
            return indices, changes, find_origin(changes, sizes[indices], canvas) if cuts else None

        def finish(loaded: Any) -> Batch:
            return take(resident, *shard(loaded))
    else:

        def load(step: int, indices: np.ndarray) -> Any:
            numbers = draw_numbers(config.seed, step, own, batch_size, config.augment)
            batch, parts = make_empty_batch(share, canvas, given.num_channels, given.dtype, tasks), []
            for place, index in enumerate(indices[own]):  # one large image at a time is in memory
                example, one = source[int(index)], slice(place, place + 1)
                size = np.array([example.label.shape[:2]], np.int32)
                changes = place_crop(Numbers(*(x[one] for x in numbers)), size, config.augment)
                origin = find_origin(changes, size, canvas)
                _put(batch, place, example, tuple(origin[0].tolist()))
                parts.append((changes, origin))
            changes, origin = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            return batch._replace(changes=changes, origin=origin if cuts else None)

        def finish(loaded: Any) -> Batch:
            return shard(loaded)

    order = order_batches(len(source), batch_size, config.seed)
    reading = grain.ReadOptions(num_threads=options.workers, prefetch_buffer_size=options.workers)
    yield from map(finish, order.map_with_index(load)[first_step:].to_iter_dataset(reading))


def order_batches(count: int, batch_size: int, seed: int) -> grain.MapDataset:
    """Return the indices of the images of every step, from index 0 on, without end: each epoch in a new order."""
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat().batch(batch_size)


def load_on_devices(source: Sequence[Example], canvas: tuple[int, int], sharding: NamedSharding, workers: int) -> Batch:
    """Load a whole split onto the devices, each image on a canvas, and a copy on every device.

    With a copy on every device a step takes its images without any communication.

    Args:
        source: the split.
        canvas: height and width into which every image of the split fits.
        sharding: any sharding over the devices.
        workers: number of threads that decode.

    Raises:
        InputError: the split needs more than half of the free memory; the other half is for training.
    """
    first = source[0]  # all have as many channels and tasks
    channels, dtype, tasks = first.image.shape[-1], first.image.dtype, count_maps(first.label)
    pixel = channels * dtype.itemsize + tasks
    require_room(len(source), canvas, pixel)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    replicate = partial(jax.tree.map, partial(jax.make_array_from_process_local_data, everywhere))

    @partial(jax.jit, out_shardings=everywhere)
    def empty() -> Batch:
        shape = (len(source), *canvas)
        return Batch(
            jnp.zeros((*shape, channels), dtype),
            jnp.zeros((*shape, *add_axis(tasks)), jnp.uint8),
            jnp.zeros((len(source), 2), jnp.int32),
        )

    @partial(jax.jit, donate_argnums=0, out_shardings=everywhere)
    def write(loaded: Batch, part: Batch, start: jax.Array) -> Batch:
        return jax.tree.map(lambda to, x: jax.lax.dynamic_update_slice_in_dim(to, x, start, 0), loaded, part)

    loaded, count = empty(), max(1, CHUNK // (pixel * canvas[0] * canvas[1]))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), count):
            indices = range(start, min(start + count, len(source)))
            part = place_on_canvas(pool.map(source.__getitem__, indices), len(indices), canvas)
            loaded = write(loaded, replicate(part), start)
    return loaded


def require_room(count: int, canvas: tuple[int, int], pixel: int = 4) -> None:
    """Check that images and labels on canvases fit into half of each device's free memory.

    Args:
        count: number of images.
        canvas: height and width of a canvas.
        pixel: bytes of a pixel of an image and its label.

    Raises:
        InputError: they do not fit.
    """
    need = count * canvas[0] * canvas[1] * pixel
    free = min(map(_read_free_memory, jax.local_devices()))
    if need > free / 2:
        raise InputError(
            f"{count} decoded images on canvases of {canvas[1]}x{canvas[0]} need {need / 1e9:.1f} GB on each device, "
            f"and half of the {free / 1e9:.1f} GB that are free there are kept for training; "
            "give --data.decoded disk, or never"
        )


def _read_free_memory(device: Any) -> float:
    """Read the free memory of a device in bytes; return infinity if unknown. CPU devices share the host's memory."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats["bytes_in_use"])
    return read_free_memory() / count_local_devices()


def _take(
    resident: Batch, indices: jax.Array, changes: Changes, origin: jax.Array | None, *, canvas: tuple[int, int]
) -> Batch:
    """Take images from the split on the devices, each cut to its canvas."""
    if origin is None:
        return Batch(resident.image[indices], resident.label[indices], resident.size[indices], changes)

    def cut(array: Any, index: jax.Array, at: jax.Array) -> jax.Array:
        start = (index, at[0], at[1], *(0 for _ in array.shape[3:]))
        return jax.lax.dynamic_slice(array, start, (1, *canvas, *array.shape[3:]))[0]

    image, label = (jax.vmap(partial(cut, array))(indices, origin) for array in (resident.image, resident.label))
    return Batch(image, label, resident.size[indices], changes, origin)
