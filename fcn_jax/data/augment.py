"""Random zoom, crop, flip and colour, on the device, image and label together.

Resampling is two small matrix products an image, one an axis, so it is fast on matrix units. A crop looks at a part of
a large image alone: `reach` says how long that part is at most and `origin` where it begins, so the host hands over no
more than that.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8

from fcn_jax.config import AugmentConfig, InputConfig
from fcn_jax.data.labels import IGNORE

# Of photographs: the unit of brightness changes, whatever the network takes pixels to be.
DEVIATION = InputConfig().std


def normalise(
    image: UInt8[Array, "*batch height width 3"], input_config: InputConfig
) -> Float[Array, "*batch height width 3"]:
    """RGB 0..255 -> what the network takes: its order of the channels, (pixel - mean) / std."""
    channel = (1,) * (image.ndim - 1) + (3,)
    mean, std = (jnp.array(values).reshape(channel) for values in (input_config.mean, input_config.std))
    pixels = image if input_config.order == "rgb" else image[..., ::-1]
    return (pixels.astype(jnp.float32) - mean) / std


def step_keys(seed: int, step: Int[Array, ""], batch_size: int) -> tuple[Key[Array, " batch"], Key[Array, ""]]:
    """What decides all that is random in a step: a key for each image of the global batch, and one for dropout."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    augment_key, dropout_key = jax.random.split(key)
    return jax.random.split(augment_key, batch_size), dropout_key


def reach(config: AugmentConfig) -> int:
    """The longest side of the part of an image that any crop of it looks at, pixels, rounded up.

    At the smallest zoom, with `_margin` on both sides. By 64, so that images of the usual sizes stay whole at the
    usual crops.
    """
    return -(-(math.ceil(config.crop / config.scale[0]) + 2 * _margin(config) + 2) // 64) * 64


def origin(
    key: Key[Array, ""], size: Int[Array, "2"], canvas: Int[Array, "2"], config: AugmentConfig
) -> Int[Array, "2"]:
    """First row and column of the part of an image that `augment` looks at under this key; 0 where all of it fits.

    Args:
        key: as given to `augment`.
        size: rows and columns of the image.
        canvas: of the part; `reach(config)`, or no less than the image.
        config: a resolved configuration.
    """
    zoom_key, place_key, _, _ = jax.random.split(key, 4)
    zoom, start = _crop(zoom_key, place_key, size, config)
    first = jnp.floor((start + 0.5) / zoom - 0.5).astype(jnp.int32) - _margin(config)
    return jnp.clip(first, 0, jnp.maximum(size - canvas, 0))


def augment(
    key: Key[Array, ""],
    image: UInt8[Array, "height width 3"],
    label: UInt8[Array, "height width"],
    size: Int[Array, "2"],
    config: AugmentConfig,
    input_config: InputConfig,
    origin: Int[Array, "2"] | None = None,
) -> tuple[Float[Array, "crop crop 3"], UInt8[Array, "crop crop"]]:
    """One training example: a random square window of a randomly zoomed, mirrored, recoloured image.

    Where the window reaches beyond the image it holds the mean colour (0 once normalised) and `IGNORE`.

    Args:
        key: decides everything random.
        image: on its canvas, at the top left.
        label: likewise.
        size: rows and columns of the image.
        config: a resolved configuration.
        input_config: what the network takes pixels to be.
        origin: the row and column of the image that the canvas begins with, if it holds no more than the part that
            the crop looks at; `size` is the whole image's all the same.
    """
    crop = config.crop
    zoom_key, place_key, flip_key, colour_key = jax.random.split(key, 4)
    zoom, start = _crop(zoom_key, place_key, size, config)
    flip = jax.random.bernoulli(flip_key) if config.flip else jnp.array(False)

    ticks = jnp.arange(crop, dtype=jnp.float32)
    rows = (ticks + start[0] + 0.5) / zoom - 0.5
    columns = (jnp.where(flip, crop - 1 - ticks, ticks) + start[1] + 0.5) / zoom - 0.5

    pixels = normalise(image, input_config)
    if config.colour:
        pixels = _recolour(colour_key, pixels, config.colour, jnp.array(DEVIATION) / jnp.array(input_config.std))
    height, width = label.shape
    top, left = (0, 0) if origin is None else origin
    pixels = jnp.einsum("ih,hwc->iwc", _tent(rows, size[0], top, height, zoom), pixels)
    pixels = jnp.einsum("jw,iwc->ijc", _tent(columns, size[1], left, width, zoom), pixels)

    near_rows, near_columns = jnp.round(rows).astype(jnp.int32), jnp.round(columns).astype(jnp.int32)
    inside = _within(near_rows, size[0])[:, None] & _within(near_columns, size[1])[None, :]
    near_rows, near_columns = near_rows - top, near_columns - left
    picked = label[jnp.clip(near_rows, 0, height - 1)][:, jnp.clip(near_columns, 0, width - 1)]
    return pixels, jnp.where(inside, picked, jnp.uint8(IGNORE))


def _margin(config: AugmentConfig) -> int:
    """Cells beyond a crop's first and last position, at the smallest zoom: what the tent covers.

    And as much again, one pixel of the crop: origins are computed on the host, whose logarithms may differ in the last
    bit from the accelerator's, and a crop then begins one pixel further.
    """
    return math.ceil(2 * max(1, 1 / config.scale[0])) + 1


def _crop(
    zoom_key: Key[Array, ""], place_key: Key[Array, ""], size: Int[Array, "2"], config: AugmentConfig
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """The zoom, and the first row and column of the crop in pixels of the zoomed image."""
    low, high = config.scale
    # Uniform in the logarithm: halving is as likely as doubling.
    zoom = jnp.exp(jax.random.uniform(zoom_key, (), minval=jnp.log(low), maxval=jnp.log(high)))
    # A zoomed image larger than the crop: any window inside it; a smaller one: anywhere inside the window.
    # By whole pixels of the zoomed image: without zoom nothing is resampled, so training sees images as sharp as
    # evaluation does.
    slack = jnp.trunc(size.astype(jnp.float32) * zoom - config.crop)
    return zoom, jnp.sign(slack) * jnp.floor(jax.random.uniform(place_key, (2,)) * (jnp.abs(slack) + 1))


def _within(index: Array, size: Array) -> Array:
    return (index >= 0) & (index < size)


def _tent(position: Array, size: Array, first: Array | int, canvas: int, zoom: Array) -> Float[Array, "crop canvas"]:
    """Weights of source cells, the `canvas` from `first` on, for each sampled position.

    Bilinear when enlarging, a wider tent when shrinking: averaging over what one result covers keeps fine texture from
    turning into noise. Rows of positions outside the image are zero.
    """
    reach = jnp.maximum(1.0, 1.0 / zoom)
    cells = (jnp.arange(canvas) + first).astype(jnp.float32)
    last = (size - 1).astype(jnp.float32)
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.clip(position, 0.0, last)[:, None] - cells[None, :]) / reach)
    weight = jnp.where(cells[None, :] <= last, weight, 0.0)
    weight = weight / weight.sum(axis=1, keepdims=True)
    inside = (position > -0.5) & (position < last + 0.5)
    return jnp.where(inside[:, None], weight, 0.0)


def _recolour(
    key: Array, pixels: Float[Array, "height width 3"], strength: float, deviation: Float[Array, "3"]
) -> Float[Array, "height width 3"]:
    """Changes contrast and saturation by factors, brightness by a shift in deviations, of up to `strength`."""
    brightness, contrast, saturation = jax.random.uniform(key, (3,), minval=-strength, maxval=strength)
    grey = pixels.mean(axis=-1, keepdims=True)
    pixels = grey + (1 + saturation) * (pixels - grey)
    return (1 + contrast) * pixels + brightness * deviation.reshape(1, 1, 3)
