"""Feature maps with their geometry: values, stride, offset, reach, and the part of them that is image.

Cell i of a feature map has its centre at input pixel ``offset + stride * i``, per axis. Every sliding window changes
both numbers by the same rule (`_locate_results`), so a head can compute the kernel and the crop of each upsampling
from them. Source of the arithmetic: Dumoulin & Visin 2016. It replaces the crop constants in the reference's net.py
files (19, 5, 9, 27, 31).

`FeatureMap.size` is the number of rows and columns of a padded canvas that belong to each image. Cells outside are
cleared before every operation that reads neighbours, so an image on a larger canvas gives exactly what it gives alone.

A canvas may also show a part of an image, which begins at `FeatureMap.origin`. Windows at a cut border see zeros in
place of the pixels beyond it. `FeatureMap.reach` says how far a cell sees, so cells that are further than that from
every cut border are those of the whole image.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from fcn_jax.layers import Conv, max_pool
from fcn_jax.layers.sizes import is_int


class FeatureMap(struct.PyTreeNode):
    """Values that a network has computed from a batch of images, and where they lie in the images.

    Attributes:
        values: float[batch, height, width, channels].
        size: int32[batch, 2], rows and columns that belong to each image; None if all of them do.
        stride: input pixels from one cell to the next.
        offset: input coordinate of the centre of the image's cell 0; the centre of input pixel 0 is 0.
        origin: int32[batch, 2], row and column of each image's map at which the canvas begins; None: 0. In input pixels
            it must be a multiple of `coarsest`.
        reach: greatest distance from the centre of a cell to a pixel that it depends on, in input pixels along an axis.
        coarsest: least common multiple of the strides of all maps that it was computed from. Images that begin at
            multiples of it have the same windows.
    """

    # Without shapes in the annotations, because JAX also builds pytrees of shapes, axes or None in place of arrays.
    values: Any
    size: Any = None
    stride: int = struct.field(pytree_node=False, default=1)
    offset: float = struct.field(pytree_node=False, default=0.0)
    origin: Any = None
    reach: float = struct.field(pytree_node=False, default=0.0)
    coarsest: int = struct.field(pytree_node=False, default=1)

    @property
    def shape(self) -> tuple[Any, Any]:
        """Height and width of the canvas: integers, or symbols of `jax.export`."""
        return self.values.shape[1], self.values.shape[2]

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "FeatureMap":
        """Apply an operation that keeps every cell in its place: an activation, a normalization or dropout."""
        return self.replace(values=function(self.values))

    def clear_outside(self, fill: float = 0.0) -> jax.Array:
        """Return the values with `fill` in place of what lies outside the images."""
        if self.size is None:
            return self.values
        height, width = self.shape
        size = self.size if self.origin is None else self.size - self.origin
        down, across = (jax.lax.slice_in_dim(size, axis, axis + 1, axis=1) for axis in (0, 1))
        rows = jnp.arange(height)[None, :] < down
        columns = jnp.arange(width)[None, :] < across
        inside = rows[:, :, None] & columns[:, None, :]
        return jnp.where(inside[..., None], self.values, jnp.asarray(fill, self.values.dtype))


def _locate_results(
    x: FeatureMap, values: jax.Array, kernel: int, stride: int, padding: int, ceil: bool = False
) -> FeatureMap:
    """Make the feature map of a sliding window's results.

    Result j covers `kernel` cells of `x` from cell ``j * stride - padding`` on. `ceil` is the rounding of `pool`.
    """
    size = x.size
    if size is not None:
        room = size + (2 * padding - kernel)
        # Caffe drops the last window if it would start in the padding behind the image, but never the first window.
        steps = jnp.minimum(-(-room // stride), (size + padding - 1) // stride) if ceil else room // stride
        steps = jnp.maximum(steps, 0) if ceil else steps
        size = jnp.where(size > 0, steps + 1, 0)
    return FeatureMap(
        values=values,
        size=size,
        origin=None if x.origin is None else x.origin // stride,
        stride=x.stride * stride,
        offset=x.offset + x.stride * ((kernel - 1) / 2 - padding),
        reach=x.reach + x.stride * (kernel - 1) / 2,
        coarsest=math.lcm(x.coarsest, x.stride * stride),
    )


def convolve(conv: Conv | nn.Conv, x: FeatureMap) -> FeatureMap:
    """Apply a square convolution, and locate its results by its kernel, stride, padding and dilation.

    Args:
        conv: module with an integer padding, the same for both axes.
        x: map with `in` channels.

    Returns:
        Map with `out` channels; a side of n has ``floor((n + 2 * padding - kernel) / stride) + 1`` cells.

    Raises:
        ValueError: the convolution differs between the axes.
    """
    kernel = (_read_same_for_axes(conv.kernel_size) - 1) * _read_same_for_axes(conv.kernel_dilation) + 1
    stride, padding = _read_same_for_axes(conv.strides), _read_same_for_axes(conv.padding)
    reads_neighbours = kernel > 1 or padding > 0
    values = conv(x.clear_outside() if reads_neighbours else x.values)
    return _locate_results(x, values, kernel, stride, padding)


def pool(x: FeatureMap, window: int, stride: int, padding: int = 0, *, ceil: bool = False) -> FeatureMap:
    """Take the largest value of each window; values outside an image are never the largest.

    Args:
        x: the map.
        window: side of the window.
        stride: cells from one window to the next.
        padding: border on each side.
        ceil: round the number of windows up, as Caffe does.
    """
    values = x.clear_outside(fill=-jnp.inf)
    values = max_pool(values, window, stride, padding, ceil=ceil)
    return _locate_results(x, values, window, stride, padding, ceil)


def add(x: FeatureMap, y: FeatureMap) -> FeatureMap:
    """Add two maps that lie on the same grid.

    Raises:
        ValueError: stride, offset or shape of the maps differ.
    """
    if (x.stride, x.offset, x.values.shape) != (y.stride, y.offset, y.values.shape):
        raise ValueError(
            f"feature maps to be added must lie on one grid: got stride {x.stride}, offset {x.offset}, "
            f"shape {x.values.shape} and stride {y.stride}, offset {y.offset}, shape {y.values.shape}; "
            "upsample the coarser one to the finer one first"
        )
    return _join([x, y], x.values + y.values)


def concatenate(maps: Sequence[FeatureMap]) -> FeatureMap:
    """Concatenate the channels of maps that lie on the same grid."""
    return _join(maps, jnp.concatenate([x.values for x in maps], axis=-1))


def _join(maps: Sequence[FeatureMap], values: jax.Array) -> FeatureMap:
    """Make a map of values that were computed from the same cells of several maps."""
    reach, coarsest = max(x.reach for x in maps), math.lcm(*(x.coarsest for x in maps))
    return maps[0].replace(values=values, reach=reach, coarsest=coarsest)


def _read_same_for_axes(value: Any) -> int:
    """Read a stride, padding or dilation, in any of the forms that Flax takes, as one integer for both axes."""
    values = set(jax.tree.leaves(value)) or {1}
    if len(values) != 1 or not all(map(is_int, values)):
        raise ValueError(
            f"a feature map needs integers, the same on both axes and sides, for strides, padding and dilation; got "
            f"{value!r}; give one integer"
        )
    return int(values.pop())
