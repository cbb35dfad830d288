"""Feature maps that know where they lie: values, stride, offset, and the part of them that is image.

Cell `i` of a feature map looks at the input pixels around `offset + stride * i` (pixel centres, per axis). Every
sliding window moves both numbers by the same rule (`_after_window`), so the head can derive each upsampling
kernel and crop instead of carrying magic offsets. Receptive-field arithmetic: Dumoulin & Visin 2016; the crops
it replaces are those of the reference's `net.py` files (19, 5, 9, 27, 31).

`size` says how many rows and columns of a padded canvas belong to each image. Before anything looks at a
neighbourhood, what lies outside is cleared, so an image on a larger canvas gives exactly what it gives alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from fcn_jax.layers import max_pool
from fcn_jax.layers.conv import Conv


class FeatureMap(struct.PyTreeNode):
    """What a network has computed of a batch of images, and where.

    Attributes:
        values: float[batch, height, width, channels].
        size: int32[batch, 2], rows and columns that belong to each image; None where all of them do.
        stride: input pixels from one cell to the next.
        offset: input coordinate of the centre of cell 0; the centre of input pixel 0 is 0.
    """

    # Not annotated by shape: JAX also builds pytrees of shapes, axes or nothing in place of arrays.
    values: Any
    size: Any = None
    stride: int = struct.field(pytree_node=False, default=1)
    offset: float = struct.field(pytree_node=False, default=0.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.values.shape[1], self.values.shape[2]

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "FeatureMap":
        """Applies an operation that keeps every cell in its place: an activation, a normalisation, dropout."""
        return self.replace(values=function(self.values))

    def cleared(self, fill: float = 0.0) -> jax.Array:
        """The values, with `fill` outside the images."""
        if self.size is None:
            return self.values
        height, width = self.shape
        rows = jnp.arange(height)[None, :] < self.size[:, 0:1]
        columns = jnp.arange(width)[None, :] < self.size[:, 1:2]
        inside = rows[:, :, None] & columns[:, None, :]
        return jnp.where(inside[..., None], self.values, jnp.asarray(fill, self.values.dtype))


def _after_window(
    x: FeatureMap, values: jax.Array, kernel: int, stride: int, padding: int, ceil: bool = False
) -> FeatureMap:
    """Where the results of a window lie: result j covers cells j * stride - padding ... + kernel - 1 of `x`."""
    size = x.size
    if size is not None:
        room = size + (2 * padding - kernel)
        # Caffe drops a last window that would start in the padding behind the image, but never the first.
        steps = jnp.minimum(-(-room // stride), (size + padding - 1) // stride) if ceil else room // stride
        steps = jnp.maximum(steps, 0) if ceil else steps
        size = jnp.where(size > 0, steps + 1, 0)
    return FeatureMap(
        values=values,
        size=size,
        stride=x.stride * stride,
        offset=x.offset + x.stride * ((kernel - 1) / 2 - padding),
    )


def convolve(conv: Conv | nn.Conv, x: FeatureMap) -> FeatureMap:
    """Applies a square convolution; its kernel, stride, padding and dilation say where the results lie.

    Args:
        conv: module with an integer padding, the same for both axes.
        x: float[batch, height, width, in].

    Returns:
        float[batch, floor((height + 2 p - k) / s) + 1, likewise, out].
    """
    kernel = (_both_axes(conv.kernel_size) - 1) * _both_axes(conv.kernel_dilation) + 1
    stride, padding = _both_axes(conv.strides), _both_axes(conv.padding)
    look_around = kernel > 1 or padding > 0
    values = conv(x.cleared() if look_around else x.values)
    return _after_window(x, values, kernel, stride, padding)


def pool(x: FeatureMap, window: int, stride: int, padding: int = 0, *, ceil: bool = False) -> FeatureMap:
    """Max pooling; `ceil` rounds the output size up as Caffe does. What lies outside an image never wins."""
    values = x.cleared(fill=-jnp.inf)
    values = max_pool(values, window, stride, padding, ceil=ceil)
    return _after_window(x, values, window, stride, padding, ceil)


def add(x: FeatureMap, y: FeatureMap) -> FeatureMap:
    """The sum of two maps that lie on the same grid.

    Raises:
        ValueError: the cells of `x` and `y` do not look at the same places.
    """
    if (x.stride, x.offset, x.values.shape) != (y.stride, y.offset, y.values.shape):
        raise ValueError(
            f"feature maps to be added must lie on one grid: got stride {x.stride}, offset {x.offset}, "
            f"shape {x.values.shape} and stride {y.stride}, offset {y.offset}, shape {y.values.shape}; "
            "upsample the coarser one to the finer one first"
        )
    return x.replace(values=x.values + y.values)


def _both_axes(value: Any) -> int:
    """One integer from Flax's many ways to write the same stride, padding or dilation for both axes."""
    values = set(jax.tree.leaves(value)) or {1}
    if len(values) != 1:
        raise ValueError(f"a feature map needs the same geometry on both axes and sides, got {value}")
    return values.pop()
