"""Read a split as padded batches of integers on the devices.

The images of a step, their order, and the random changes to them are a function of (seed, step) alone. The number of
threads or hosts does not change them, nor does the step at which a run is resumed, nor the place of decoded images.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, SupportsIndex

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.augment import Changes, Numbers, draw_changes, draw_numbers, find_origin, place_crop, reach
from fcn_jax.data.canvas import Batch, make_empty_batch, place_on_canvas, put
from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import add_axis, count_maps
from fcn_jax.errors import InputError
from fcn_jax.layers.backend import count_local_devices
from fcn_jax.runtime.host_memory import read_free_memory

CHUNK = 64 << 20  # bytes that are sent to the devices at once


class Resident(Sequence[Example]):
    """A split whose images and labels are on the devices, as `load_on_devices` puts them there.

    Attributes:
        batch: all of them, on every device.
    """

    def __init__(self, source: Sequence[Example], batch: Batch):
        """Take the split, from which names are read, and its copy on the devices."""
        self._source, self.batch = source, batch

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: SupportsIndex) -> Example:
        return self._source[int(index)]


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
        source: the training split; a `Resident` one is not decoded.
        max_size: the largest height and the largest width of its images.
        config: configuration with every value set (`fill_config`).
        options: options with every interval set (`fill_options`).
        first_step: number of steps taken before the first batch.
        sharding: sharding of batches over the first axis.
    """
    assert config.batch_size is not None
    batch_size, given = config.batch_size, config.model.input_or_default
    share = batch_size // jax.process_count()
    own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)  # this host's places in the batch
    canvas = train_canvas(max_size, config)
    cuts = canvas != max_size
    shard = partial(jax.tree.map, partial(jax.make_array_from_process_local_data, sharding))
    tasks = count_maps(source[0].label)

    if isinstance(source, Resident):
        resident = source.batch
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
                put(batch, place, example, tuple(origin[0].tolist()))
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


def load_on_devices(
    source: Sequence[Example], canvas: tuple[int, int], sharding: NamedSharding, workers: int
) -> Resident:
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
    return Resident(source, loaded)


def require_room(count: int, canvas: tuple[int, int], pixel: int) -> None:
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
