"""Read the inputs of an image and its mask, and check them.

A mask holds class numbers (see masks.py, and mat_files.py for MATLAB files). An 8-bit PNG whose numbers are the labels
is kept without its palette; other masks are stored as PNG.

A JPEG or PNG of colours in RGB is kept byte for byte. Images that convert to RGB without loss (grey, palette, an alpha
channel without transparent pixels, other file types) are stored as PNG. Other images are refused. Inputs that are no
such pictures are read by bands.py.

EXIF orientation: the size of the mask shows whether it was drawn on the stored or on the turned image, and the image is
turned to fit. If both images have the same size, the image is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from fcn_jax.data.bands import read_bands
from fcn_jax.data.exif import turn_upright
from fcn_jax.data.headers import is_deep, parse_raw_mode
from fcn_jax.data.inputs import COLOUR, Input, Moments, Pixels, encode_png, measure
from fcn_jax.data.masks import read_samples
from fcn_jax.data.mat_files import read_mask_array
from fcn_jax.data.pictures import JPEG, Picture, convert_to_rgb, open_picture
from fcn_jax.data.png import strip_palette
from fcn_jax.data.sources.source import Labels, Outlined
from fcn_jax.data.tasks import count_maps, split_maps, stack_label
from fcn_jax.errors import InputError


class Pair(NamedTuple):
    """An example as it is stored.

    Attributes:
        images: the file of each input: a JPEG or PNG in RGB, or a PNG with the channels below each other.
        label: a PNG with the class of each pixel, and 255 for void; the labels of several tasks are below each other.
        counts: number of pixels of each label, 256 numbers for each task.
        shape: height and width of the images.
        moments: sums over the input without a mean of its own; None: there is none.
    """

    images: tuple[bytes, ...]
    label: bytes
    counts: Int64[np.ndarray, "labels"]
    shape: tuple[int, int]
    moments: Moments | None = None


def read_tasks(
    images: Sequence[Path],
    masks: Sequence[Path],
    tasks: Sequence[Labels],
    variable: str = "",
    inputs: Sequence[Input] = (COLOUR,),
) -> Pair:
    """Read and check the files of an example with a mask for each task.

    Args:
        images: the file of each input.
        masks: the mask files, in the order of the tasks.
        tasks: what the masks mean.
        variable: for masks in MATLAB files, the variable that is the mask.
        inputs: the inputs.

    Raises:
        InputError: something is wrong; the message has one line for each problem.
    """
    problems, read, found = [], [], []
    for file, given in zip(images, inputs, strict=True):
        try:
            read.append(_open_colours(file) if given.is_picture else read_bands(file, given))
        except InputError as error:
            problems.append(str(error))
    for mask, task in zip(masks, tasks, strict=True):
        try:
            found.append(_read_mask(mask, task, variable))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    arrays = [label for label, _ in found]
    shape, name = arrays[0].shape, f"mask {masks[0].name}"
    stored = tuple(
        _store_image(picture, file.name, shape, name)
        if isinstance(picture, Picture)
        else _store_bands(picture, file.name, shape, name)
        for file, picture in zip(images, read, strict=True)
    )
    for mask, label in zip(masks[1:], arrays[1:], strict=True):
        _require_shape(label.shape, shape, f"mask {mask.name}", name)
    counts = np.concatenate([count_pixels(label) for label in arrays])
    png = found[0][1] if len(found) == 1 else encode_png(np.concatenate(arrays))
    bands = [array for array, given in zip(read, inputs, strict=True) if given.mean is None]
    return Pair(stored, png, counts, arrays[0].shape, measure(bands[0]) if bands else None)


def _read_mask(mask: Path, task: Labels, variable: str) -> tuple[UInt8[np.ndarray, "height width"], bytes]:
    """Return the label of each pixel, and a PNG of them."""
    drawn = None if variable else open_picture(mask, "mask")
    in_colour = bool(task.label_map.colours)
    samples = read_samples(drawn, mask.name, in_colour) if drawn else read_mask_array(mask, variable)
    if drawn and in_colour and samples.ndim == 2:
        layout = parse_raw_mode(drawn.raw_mode)
        largest = 2**layout.bits - 1 if layout else 255
        task.label_map.require_one_meaning(samples, mask.name, len(task.class_names), largest)
    label = task.look_up(samples, mask.name)
    if drawn and label is samples and drawn.format == "PNG" and drawn.raw_mode in ("L", "P"):
        return label, strip_palette(drawn.data)
    return label, encode_png(label)


def store_drawn(images: Sequence[np.ndarray], label: UInt8[np.ndarray, "height width *tasks"]) -> Pair:
    """Store the arrays of all inputs and the checked labels."""
    maps = split_maps(label, count_maps(label))
    counts = np.concatenate([count_pixels(one) for one in maps])
    return Pair(tuple(map(encode_png, images)), encode_png(stack_label(label)), counts, label.shape[:2])


def read_outlined(example: Outlined) -> Pair:
    """Read and check the image of an example, and draw its mask.

    Raises:
        InputError: something is wrong with the image or the outlines.
    """
    name = example.image.name
    found = _open_colours(example.image)
    # The size is checked before the mask is drawn, because a wrong one may be huge.
    stored = _store_image(found, name, example.shape, f"the mask of {name} in {example.outlines.name}")
    label = example.draw()
    return Pair((stored,), encode_png(label), count_pixels(label), example.shape)


def _store_image(found: Picture, name: str, shape: tuple[int, int], mask: str) -> bytes:
    """Return the file of an image, turned to fit its mask. A JPEG or PNG in RGB that is upright is kept as it is."""
    turned = _turn_like_mask(found, shape, name)
    if shape != (turned.height, turned.width):
        raise InputError(
            f"{mask} has {shape[1]}x{shape[0]} pixels, its image {name} "
            f"{turned.width}x{turned.height}: they must have the same size; make the mask from this image"
        )
    as_found = turned is found.image and turned.mode == "RGB" and found.format in (*JPEG, "PNG")
    return found.data if as_found else encode_png(np.asarray(convert_to_rgb(turned)))


def _store_bands(array: Pixels, name: str, shape: tuple[int, int], mask: str) -> bytes:
    height, width, _ = array.shape
    _require_shape(shape, (height, width), mask, name)
    return encode_png(array)


def _require_shape(shape: tuple[int, int], wanted: tuple[int, int], mask: str, other: str) -> None:
    if shape != wanted:
        raise InputError(
            f"{mask} has {shape[1]}x{shape[0]} pixels, {other} {wanted[1]}x{wanted[0]}: they must have the same size; "
            "make one from the other"
        )


def count_pixels(label: UInt8[np.ndarray, "height width"]) -> Int64[np.ndarray, "256"]:
    """Count the pixels of each label."""
    return np.bincount(label.ravel(), minlength=256)


def _open_colours(file: Path) -> Picture:
    found = open_picture(file, "image")
    _check_colours(found, file.name)
    return found


def _check_colours(file: Picture, name: str) -> None:
    image = file.image
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA") or is_deep(file.raw_mode, file.data):
        raise InputError(
            f"image {name} is of mode {image.mode} (samples {file.raw_mode}), which does not convert to 8-bit "
            "RGB without loss; save it as 8-bit RGB, or for the data set folder give --data.inputs bands, which takes "
            "other channels"
        )
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise InputError(
            f"image {name} has transparent pixels, whose colour is unknown; put it on a background and save it as RGB"
        )


def _turn_like_mask(picture: Picture, shape: tuple[int, int], name: str) -> Image.Image:
    """Turn the image by its EXIF orientation if its mask has the size of the turned image."""
    image, orientation = picture.image, picture.orientation
    if orientation == 1:
        return image
    if orientation < 5 or image.width == image.height:
        raise InputError(
            f"image {name} has EXIF orientation {orientation}, and its size cannot tell whether the mask was drawn "
            "on the stored or on the turned image; turn the pixels to fit the mask and remove the tag"
        )
    return turn_upright(image, orientation) if shape == (image.width, image.height) else image
