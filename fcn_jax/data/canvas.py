"""Batches of images of several sizes, each at the top left of a canvas of one size."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, Integer, UInt8
from numpy.typing import DTypeLike

from fcn_jax.data.augment import Changes
from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import add_axis, count_maps
from fcn_jax.errors import InputError


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
        put(batch, index, example, origin)
    if origins is None:
        return batch
    origin = np.zeros_like(batch.size)
    origin[: len(origins)] = origins
    return batch._replace(origin=origin)


def put(batch: Batch, index: int, example: Example, origin: tuple[int, int] = (0, 0)) -> None:
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
