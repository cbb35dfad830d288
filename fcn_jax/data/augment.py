"""Random zoom, crop, flip and colour changes: drawn on the host, applied on the device.

`draw_changes` draws every random number of a step and places the crops. The batch carries the changes to the device,
where `augment` applies them to image and label together. The host needs them too: a crop covers only a part of a large
image, and the host sends no more than that part to the device (`find_origin`).
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Integer, Key, UInt8

from fcn_jax.config import AugmentConfig, InputConfig
from fcn_jax.data.labels import IGNORE

# Colours change in this unit, the deviation of photographs in RGB, whatever the input of the network.
DEVIATION = InputConfig().std


class Numbers(NamedTuple):
    """The random numbers of a step, a row for each image.

    Attributes:
        zoom: factor on the size of the image.
        place: where the crop lies between its first and its last possible row and column, 0 to below 1.
        flip: whether the crop is mirrored, left to right.
        colour: brightness, contrast and saturation changes, each within -strength to strength.
    """

    zoom: Float32[np.ndarray, " batch"]
    place: Float32[np.ndarray, "batch 2"]
    flip: Bool[np.ndarray, " batch"]
    colour: Float32[np.ndarray, "batch 3"]


class Changes(NamedTuple):
    """The random changes to the images of a batch.

    Attributes:
        zoom: factor on the size of each image.
        start: first row and column of the crop, in whole pixels of the zoomed image; negative where the crop begins
            outside the image.
        flip: whether the crop is mirrored, left to right.
        colour: brightness, contrast and saturation changes, each within -strength to strength.
    """

    zoom: Float[np.ndarray | Array, "*batch"]
    start: Float[np.ndarray | Array, "*batch 2"]
    flip: Bool[np.ndarray | Array, "*batch"]
    colour: Float[np.ndarray | Array, "*batch 3"]


def step_keys(seed: int, step: Int[Array, ""], batch_size: int) -> tuple[Key[Array, " batch"], Key[Array, ""]]:
    """Make the keys of a step: one for each image of the global batch, and one for dropout."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    augment_key, dropout_key = jax.random.split(key)
    return jax.random.split(augment_key, batch_size), dropout_key


def draw_changes(
    seed: int, step: int, sizes: Int32[np.ndarray, "share 2"], first: int, batch_size: int, config: AugmentConfig
) -> Changes:
    """Draw the changes to this host's images in a step, on the host's processor.

    They are a function of the seed, the step, and each image's place in the batch and size.

    Args:
        seed: seed of the run.
        step: number of steps taken before this one.
        sizes: rows and columns of the images.
        first: place of the first of these images in the global batch.
        batch_size: number of images in the global batch.
        config: settings with every value set (`fill_config`).
    """
    numbers = draw_numbers(seed, step, slice(first, first + len(sizes)), batch_size, config)
    return place_crop(numbers, sizes, config)


def draw_numbers(seed: int, step: int, images: slice, batch_size: int, config: AugmentConfig) -> Numbers:
    """Draw the random numbers of a step, on the host's processor.

    They do not depend on the sizes of the images, so they can be drawn before any image is read.

    Args:
        seed: seed of the run.
        step: number of steps taken before this one.
        images: this host's places in the global batch.
        batch_size: number of images in the global batch.
        config: settings with every value set (`fill_config`).
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        numbers = _draw(np.int32(step), seed=seed, batch_size=batch_size, config=config)
        return Numbers(*(np.asarray(x)[images] for x in numbers))


# LLVM's first level of optimisation gives the same bits and compiles faster.
@partial(
    jax.jit,
    static_argnames=("seed", "batch_size", "config"),
    compiler_options={"xla_backend_optimization_level": 1},
)
def _draw(step: Array, *, seed: int, batch_size: int, config: AugmentConfig) -> Any:
    keys, _ = step_keys(seed, step, batch_size)
    return jax.vmap(partial(_draw_one, config=config))(keys)


def _draw_one(key: Key[Array, ""], config: AugmentConfig) -> tuple[Array, Array, Array, Array]:
    zoom_key, place_key, flip_key, colour_key = jax.random.split(key, 4)
    low, high = _get_scale(config)
    # Numbers that change nothing are not drawn, so that less is traced and compiled before the first step.
    zoom, flip, colour = jnp.ones(()), jnp.array(False), jnp.zeros((3,))
    if (low, high) != (1, 1):  # uniform in the logarithm, so halving is as likely as doubling
        zoom = jnp.exp(jax.random.uniform(zoom_key, (), minval=jnp.log(low), maxval=jnp.log(high)))
    if config.flip:
        flip = jax.random.bernoulli(flip_key)
    if config.colour:
        colour = jax.random.uniform(colour_key, (3,), minval=-config.colour, maxval=config.colour)
    return zoom, jax.random.uniform(place_key, (2,)), flip, colour


def place_crop(numbers: Numbers, sizes: Int32[np.ndarray, "batch 2"], config: AugmentConfig) -> Changes:
    """Place the crops of images whose sizes are known.

    A crop lies anywhere inside the zoomed image; an image that is smaller lies anywhere inside the crop. The crop moves
    by whole pixels of the zoomed image: at a zoom of 1 nothing is resampled, so training sees images as sharp as
    evaluation does.

    Args:
        numbers: random numbers of the images.
        sizes: rows and columns of the images.
        config: settings with every value set (`fill_config`).
    """
    slack = np.trunc(sizes.astype(np.float32) * numbers.zoom[:, None] - np.float32(_get_crop(config)))
    start = np.sign(slack) * np.floor(numbers.place * (np.abs(slack) + np.float32(1)))
    return Changes(numbers.zoom, start, numbers.flip, numbers.colour)


def reach(config: AugmentConfig) -> int:
    """Compute the longest side of the part of an image that a crop can cover, in pixels.

    The side is rounded up to a multiple of 64, so that images of the usual sizes stay whole at the usual crops.
    """
    smallest = _get_scale(config)[0]
    return -(-(math.ceil(_get_crop(config) / smallest) + 2 * _compute_tent_reach(smallest) + 2) // 64) * 64


def find_origin(
    changes: Changes, sizes: Int32[np.ndarray, "batch 2"], canvas: tuple[int, int]
) -> Int32[np.ndarray, "batch 2"]:
    """Find the first row and column of the part of each image that its crop covers; 0 if the whole image fits.

    Args:
        changes: changes to the images, as NumPy arrays.
        sizes: rows and columns of the images.
        canvas: rows and columns of the part: at least `reach(config)`, or the size of the largest image.
    """
    zoom = changes.zoom[:, None]
    margin = np.ceil(np.maximum(1, 1 / zoom)).astype(np.int32)
    first = np.floor((changes.start + np.float32(0.5)) / zoom - np.float32(0.5)).astype(np.int32) - margin
    return np.clip(first, 0, np.maximum(sizes - np.array(canvas, np.int32), 0)).astype(np.int32)


def augment(
    image: Integer[Array, "height width channels"],
    label: UInt8[Array, "height width *tasks"],
    size: Int[Array, "2"],
    changes: Changes,
    origin: Int[Array, "2"] | None,
    *,
    config: AugmentConfig,
    input_config: InputConfig,
) -> tuple[Float[Array, "crop crop channels"], UInt8[Array, "crop crop *tasks"]]:
    """Make a training example: a square crop of a zoomed, mirrored, recoloured image, normalised, and its labels.

    Zoom, crop and mirror image are those of all channels, and colours change in the colour channels alone. Where the
    crop reaches beyond the image it has the mean (0 after normalisation) and `IGNORE`. Resampling is two small matrix
    products for an image, one for each axis, which is fast on matrix units.

    Args:
        image: the image, at the top left of its canvas.
        label: the label of the image, on a canvas of the same size; those of all tasks are changed alike.
        size: rows and columns of the image.
        changes: changes to this image.
        origin: row and column of the image at which the canvas begins, if the canvas holds only the part that the crop
            covers; None: the canvas holds the whole image. `size` is that of the whole image in both cases.
        config: settings with every value set (`fill_config`).
        input_config: input of the network.
    """
    zoom, start, flip, colour = map(jnp.asarray, changes)
    crop = _get_crop(config)
    ticks = jnp.arange(crop, dtype=jnp.float32)
    rows = (ticks + start[0] + 0.5) / zoom - 0.5
    columns = (jnp.where(flip, crop - 1 - ticks, ticks) + start[1] + 0.5) / zoom - 0.5

    pixels = normalise(image, input_config)
    if config.colour and input_config.colour:
        deviation = jnp.array(DEVIATION if input_config.order == "rgb" else DEVIATION[::-1])
        unit = (deviation / jnp.array(input_config.std[input_config.colour])).reshape(1, 1, 3)
        pixels = _change_channels(pixels, input_config.colour, lambda part: _recolour(part / unit, colour) * unit)
    height, width = label.shape[:2]
    top, left = (0, 0) if origin is None else origin
    pixels = jnp.einsum("ih,hwc->iwc", _compute_tent(rows, size[0], top, height, zoom), pixels)
    pixels = jnp.einsum("jw,iwc->ijc", _compute_tent(columns, size[1], left, width, zoom), pixels)

    near_rows, near_columns = (jnp.floor(place + 0.5).astype(jnp.int32) for place in (rows, columns))
    inside = _is_within(near_rows, size[0])[:, None] & _is_within(near_columns, size[1])[None, :]
    near_rows, near_columns = near_rows - top, near_columns - left
    picked = label[jnp.clip(near_rows, 0, height - 1)][:, jnp.clip(near_columns, 0, width - 1)]
    return pixels, jnp.where(jnp.expand_dims(inside, range(2, label.ndim)), picked, jnp.uint8(IGNORE))


def normalise(
    image: Integer[Array, "*batch height width channels"], input_config: InputConfig
) -> Float[Array, "*batch height width channels"]:
    """Convert images to the input of the network: its order of colours, logarithms, (pixel - mean) / std.

    Raises:
        ValueError: the images have another number of channels than the input.
    """
    count = len(input_config.mean)
    if image.shape[-1] != count:
        raise ValueError(f"images have {image.shape[-1]} channels; the input of the network has {count}")
    channel = (1,) * (image.ndim - 1) + (count,)
    mean, std = (jnp.array(values).reshape(channel) for values in (input_config.mean, input_config.std))
    pixels = image
    if input_config.order == "bgr" and input_config.colour:
        pixels = _change_channels(pixels, input_config.colour, lambda part: jnp.flip(part, axis=-1))
    pixels = pixels.astype(jnp.float32)
    if input_config.log:
        is_log = jnp.array([index in input_config.log for index in range(count)]).reshape(channel)
        pixels = jnp.where(is_log, jnp.log(jnp.maximum(pixels, 1.0)), pixels)
    return (pixels - mean) / std


def _change_channels(image: Array, channels: slice, change: Callable[[Array], Array]) -> Array:
    """Apply a function to some channels of an image, and keep the others."""
    if image.shape[-1] == channels.stop - channels.start:
        return change(image)
    ends = (0, channels.start, channels.stop, image.shape[-1])
    parts = [jax.lax.slice_in_dim(image, *limits, axis=-1) for limits in pairwise(ends)]
    parts[1] = change(parts[1])
    return jnp.concatenate([part for part in parts if part.shape[-1]], axis=-1)


def _get_crop(config: AugmentConfig) -> int:
    assert config.crop is not None
    return config.crop


def _get_scale(config: AugmentConfig) -> tuple[float, float]:
    assert config.scale is not None
    return config.scale


def _compute_tent_reach(zoom: float) -> int:
    """Compute how many source pixels on each side of a position `_compute_tent` weighs, rounded up."""
    return math.ceil(max(1.0, 1.0 / zoom))


def _is_within(index: Array, size: Array) -> Array:
    return (index >= 0) & (index < size)


def _compute_tent(
    position: Array, size: Array, first: Array | int, canvas: int, zoom: Array
) -> Float[Array, "crop canvas"]:
    """Compute the weights of `canvas` source pixels, from `first` on, for each sampled position.

    The weights are bilinear when enlarging. When shrinking, the tent is wider: it averages over the source pixels that
    one result covers, so that fine texture does not turn into noise. Rows of positions outside the image are zero.
    """
    width = jnp.maximum(1.0, 1.0 / zoom)
    cells = (jnp.arange(canvas) + first).astype(jnp.float32)
    last = (size - 1).astype(jnp.float32)
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.clip(position, 0.0, last)[:, None] - cells[None, :]) / width)
    weight = jnp.where(cells[None, :] <= last, weight, 0.0)
    weight = weight / weight.sum(axis=1, keepdims=True)
    inside = (position >= -0.5) & (position < last + 0.5)
    return jnp.where(inside[:, None], weight, 0.0)


def _recolour(pixels: Float[Array, "height width 3"], colour: Float[Array, "3"]) -> Float[Array, "height width 3"]:
    """Change contrast and saturation by factors, and brightness by a shift; colours are in units of `DEVIATION`."""
    brightness, contrast, saturation = colour
    grey = pixels.mean(axis=-1, keepdims=True)
    pixels = grey + (1 + saturation) * (pixels - grey)
    return (1 + contrast) * pixels + brightness
