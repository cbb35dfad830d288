"""From a data source to padded uint8 batches on the devices.

Which images make up step t, and in which order, depends on (seed, t) alone: not on the number of threads or hosts,
nor on where a run was resumed.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Int32, UInt8

from fcn_jax.datasets import Example
from fcn_jax.labels import IGNORE


class Batch(NamedTuple):
    """Images of several sizes on one canvas, each at its top left.

    Attributes:
        image: RGB, 0 outside the image.
        label: class indices, `IGNORE` outside the image.
        size: rows and columns of each image; 0 for a place without an image.
    """

    image: UInt8[np.ndarray | jax.Array, "batch height width 3"]
    label: UInt8[np.ndarray | jax.Array, "batch height width"]
    size: Int32[np.ndarray | jax.Array, "batch 2"]


def place(examples: Iterable[Example], count: int, canvas: tuple[int, int]) -> Batch:
    """Puts up to `count` examples on canvases of `canvas` = (height, width)."""
    batch = Batch(
        image=np.zeros((count, *canvas, 3), np.uint8),
        label=np.full((count, *canvas), IGNORE, np.uint8),
        size=np.zeros((count, 2), np.int32),
    )
    for index, example in enumerate(examples):
        height, width = example.label.shape
        batch.image[index, :height, :width] = example.image
        batch.label[index, :height, :width] = example.label
        batch.size[index] = height, width
    return batch


def train_batches(
    source: Sequence[Example],
    canvas: tuple[int, int],
    batch_size: int,
    seed: int,
    first_step: int,
    workers: int,
    sharding: jax.sharding.NamedSharding,
) -> Iterator[Batch]:
    """Endless batches from `first_step` on, each epoch in a new order, sharded over the devices.

    Args:
        source: the training split.
        canvas: height and width that hold every image of it.
        batch_size: images a step over all hosts.
        seed: of the order.
        first_step: where to begin.
        workers: threads; each prepares whole batches.
        sharding: over the first axis.
    """
    share = batch_size // jax.process_count()
    mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def load(indices: np.ndarray) -> Batch:
        return place((source[int(index)] for index in indices[mine]), share, canvas)

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    batches = order.batch(batch_size).map(load)[first_step:]
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)
    for batch in batches.to_iter_dataset(options):
        yield Batch(*(jax.make_array_from_process_local_data(sharding, array) for array in batch))
