"""The inputs of data sets, such as colour and depth: what each is, and how it is stored and read.

The image of an example has the channels of all inputs that are used, side by side. Each input is stored as a file of
its own, because formats like PNG have one or three channels. Where all channels are of 8 bits the image is uint8, and
otherwise uint16.
"""

import io
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image

from fcn_jax.config import InputConfig

Pixels = UInt8[np.ndarray, "height width channels"] | UInt16[np.ndarray, "height width channels"]
"""An image, or the part of it that one input has."""


class Input(NamedTuple):
    """An input of a data set.

    Attributes:
        name: what the user writes in `--data.inputs`. The input "colour" has red, green and blue.
        channels: number of its channels; None: as many as its files have.
        dtype: type of its samples; None: that of its files.
        mean: mean of each channel; None: it is measured on the split to train on.
        std: standard deviation of each channel; None: it is measured, too.
        log: whether mean and std are those of log(max(sample, 1)).
    """

    name: str
    channels: int | None
    dtype: Literal["uint8", "uint16"] | None = "uint8"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    log: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether its files are pictures with three channels of 8 bits."""
        return self.channels == 3 and self.dtype == "uint8"


COLOUR = Input("colour", 3, "uint8", InputConfig().mean, InputConfig().std)


class Moments(NamedTuple):
    """Sums over the pixels of images.

    Attributes:
        dtype: type of the samples.
        pixels: number of pixels.
        sums: sum of the samples of each channel.
        squares: sum of their squares.
    """

    dtype: str
    pixels: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    def add(self, other: "Moments") -> "Moments":
        """Return the sums over both; they are of the same type and number of channels."""
        sums, squares = (
            tuple(map(int.__add__, *pair)) for pair in ((self.sums, other.sums), (self.squares, other.squares))
        )
        return Moments(self.dtype, self.pixels + other.pixels, sums, squares)


def measure(image: Pixels) -> Moments:
    """Sum the samples of an image and their squares, without rounding."""
    samples = image.reshape(-1, image.shape[-1]).astype(np.uint64)
    sums, squares = samples.sum(axis=0).tolist(), (samples**2).sum(axis=0).tolist()
    return Moments(str(image.dtype), len(samples), tuple(sums), tuple(squares))


def complete_input(given: Input, moments: Moments) -> Input:
    """Return an input with the type, mean and standard deviation that its images have.

    A deviation is at least one unit, so that a channel with one value everywhere does no harm.
    """
    means = [total / moments.pixels for total in moments.sums]
    # Integers, because the difference of two large numbers would lose digits.
    variances = [
        moments.pixels * square - total**2 for total, square in zip(moments.sums, moments.squares, strict=True)
    ]
    return given._replace(
        channels=len(means),
        dtype="uint8" if moments.dtype == "uint8" else "uint16",
        mean=tuple(means),
        std=tuple(max(math.sqrt(variance) / moments.pixels, 1.0) for variance in variances),
    )


def describe_inputs(inputs: Sequence[Input]) -> InputConfig:
    """Return the input of a network on these inputs that starts from no weights. Every value of them is set."""
    counts = [given.channels or 0 for given in inputs]
    is_log = [given.log for given, count in zip(inputs, counts, strict=True) for _ in range(count)]
    return InputConfig(
        mean=tuple(value for given in inputs for value in given.mean or ()),
        std=tuple(value for given in inputs for value in given.std or ()),
        log=tuple(channel for channel, log in enumerate(is_log) if log),
        channels=tuple((given.name, count) for given, count in zip(inputs, counts, strict=True)),
        dtype="uint16" if any(given.dtype == "uint16" for given in inputs) else "uint8",
    )


def get_keys(inputs: Sequence[Input]) -> tuple[str, ...]:
    """Return the keys of the inputs in a record: "image" for the first one, and their names for the others."""
    return "image", *(given.name for given in inputs[1:])


def encode_png(array: Shaped[np.ndarray, "height width *channels"]) -> bytes:
    """Encode a label as PNG, or an image: red, green and blue, or all channels below each other, of 8 or 16 bits."""
    if array.ndim == 3 and not (array.shape[-1] == 3 and array.dtype == np.uint8):
        array = np.moveaxis(array, -1, 0).reshape(-1, array.shape[1])
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=3)  # half the time of the default 6
    return file.getvalue()


def decode_image(files: Sequence[bytes], height: int) -> Pixels:
    """Decode the files of all inputs of an example, and put their channels side by side, read-only.

    Args:
        files: a JPEG or PNG in RGB, or what `encode_png` made, for each input.
        height: rows of the image.
    """
    parts = [_decode(file, height) for file in files]
    image = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1, dtype=np.result_type(*parts))
    image.flags.writeable = False
    return image


def _decode(file: bytes, height: int) -> Pixels:
    with Image.open(io.BytesIO(file)) as opened:
        stored = np.asarray(opened)
    if stored.ndim == 3:
        return stored
    planes = stored.reshape(-1, height, stored.shape[1])
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def make_picture(image: Pixels) -> UInt8[np.ndarray, "height width 3"]:
    """Make a picture to look at: the first three channels of an image as colours, or its first one as grey.

    Values above 255 are scaled, so that the hundredth of them that is darkest is black and the brightest is white.
    """
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return image
    shown = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if shown.dtype != np.uint8 and shown.size and shown.max() > 255:
        low, high = np.percentile(shown, (1, 99))
        shown = np.clip((shown - low) * (255 / max(high - low, 1)), 0, 255).round()
    return shown.astype(np.uint8)
