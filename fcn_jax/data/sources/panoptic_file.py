"""Read a file of panoptic annotations in COCO's format (cocodataset.org/#format-data), and the masks beside it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.colour_table import Colour, match_colours
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.large_images import read_size
from fcn_jax.data.masks import read_samples
from fcn_jax.data.pictures import open_picture
from fcn_jax.data.sources.coco_images import read_images
from fcn_jax.data.sources.json_parts import get_name, get_part, get_path, read_json
from fcn_jax.errors import InputError

_NUMBERS = 1 << 24  # that a pixel of a mask can have
_SHOWN = 5  # numbers of segments that an error names


class Category(NamedTuple):
    """A category: its name, and its colour if the file has one."""

    name: str
    colour: Colour | None


class SegmentedImage(NamedTuple):
    """An image with its segments.

    Attributes:
        path: the path of its file, which may be that on another machine.
        shape: height and width.
        mask: the path of its mask.
        segments: the number of the category of each segment, by the number of the segment in the mask.
    """

    path: PurePosixPath
    shape: tuple[int, int]
    mask: PurePosixPath
    segments: dict[int, int | str]


class PanopticFile(NamedTuple):
    """The content of a file: its categories by their numbers, and its images in the order of the file."""

    categories: dict[int | str, Category]
    images: list[SegmentedImage]


def read_panoptic_file(file: Path) -> PanopticFile:
    """Read a file of panoptic annotations.

    A segment that is listed and has no pixel in the mask is fine.

    Raises:
        InputError: the file is not of COCO's format, has two categories of one number or name, has not one annotation
            for each image, or has a segment of an unknown category.
    """
    content = read_json(file)
    categories = _read_categories(content, file.name)
    images = read_images(content, file.name)
    segmented: dict[int | str, SegmentedImage] = {}
    for annotation in get_part(content, "annotations", (list,), file.name):
        number = get_part(annotation, "image_id", (int, str), f"an annotation in {file.name}")
        where = f"the annotation of the image {number!r} in {file.name}"
        if number not in images or number in segmented:
            raise InputError(
                f"{where} is its second one, or the image is not in the file; an image has one annotation, so remove "
                "this one, or add the image"
            )
        segments = _read_segments(annotation, categories, where)
        segmented[number] = SegmentedImage(*images[number], get_path(annotation, "file_name", where), segments)
    if missing := [image.path for number, image in images.items() if number not in segmented]:
        raise InputError(
            f"{file.name} has no annotation for {len(missing)} of its {len(images)} images, as {missing[0]}; an image "
            "has one annotation, so add it, or remove the image from the file"
        )
    return PanopticFile(categories, [segmented[number] for number in images])


def _read_categories(content: Any, file: str) -> dict[int | str, Category]:
    found: dict[int | str, Category] = {}
    names = set()
    for item in get_part(content, "categories", (list,), file):
        number = get_part(item, "id", (int, str), f"a category in {file}")
        where = f"category {number!r} in {file}"
        name = get_name(item, "name", where)
        if number in found or name in names:
            raise InputError(f"{where}, {name}, has the number or the name of another category; give each one its own")
        found[number] = Category(name, _read_colour(item, where))
        names.add(name)
    if not 0 < len(found) <= IGNORE:
        raise InputError(f"{file} has {len(found)} categories; 1 to {IGNORE} are possible")
    return found


def _read_colour(category: dict[str, Any], where: str) -> Colour | None:
    colour = category.get("color")
    if colour is None:
        return None
    if not isinstance(colour, list) or len(colour) != 3 or any(type(v) is not int or not 0 <= v < 256 for v in colour):
        raise InputError(
            f"{where} has the color {colour!r:.40}; it is a list of red, green and blue, 0 to 255: mend it"
        )
    red, green, blue = colour
    return red, green, blue


def _read_segments(annotation: Any, categories: Mapping[int | str, Category], where: str) -> dict[int, int | str]:
    """Return the number of the category of each segment."""
    segments: dict[int, int | str] = {}
    for item in get_part(annotation, "segments_info", (list,), where):
        number = get_part(item, "id", (int,), f"a segment in {where}")
        category = get_part(item, "category_id", (int, str), f"segment {number} in {where}")
        if not 0 < number < _NUMBERS or number in segments:
            raise InputError(
                f"segment {number} in {where} is listed twice, or is not within 1 to {_NUMBERS - 1}, the numbers that "
                "a mask can have beside 0 for void; give each segment of an image a number of its own"
            )
        if category not in categories:
            raise InputError(
                f"segment {number} in {where} has the category {category!r}, which is not in the file; correct it, or "
                "add the category"
            )
        segments[number] = category
    return segments


def label_segments(
    mask: Path, labels: Mapping[int, int], shape: tuple[int, int], file: str
) -> UInt8[np.ndarray, "height width"]:
    """Return the label of each pixel of a mask, whose colours are numbers of segments: red + 256 green + 65536 blue.

    The pixels of a crowd have its class, as all others: a panoptic mask is exact for crowds, too. Number 0 is void.

    Args:
        mask: a PNG in RGB with 8 bits.
        labels: the label of each segment.
        shape: height and width of the image.
        file: the name of the file that lists the segments, for messages.

    Raises:
        InputError: the mask cannot be read, is not of this kind or this size, or has a number that is not in `labels`.
    """
    width, height = read_size(mask)  # in its header, because a wrong one may be huge
    if width and (height, width) != shape:
        raise InputError(
            f"mask {mask.name} has {width}x{height} pixels, and {file} has {shape[1]}x{shape[0]} for its image; they "
            "must be the same, so get both anew"
        )
    picture = open_picture(mask, "mask")
    if picture.format != "PNG" or picture.raw_mode != "RGB":
        raise InputError(
            f"mask {mask.name} is a {picture.format} of mode {picture.image.mode} (samples {picture.raw_mode}); a "
            "panoptic mask is a PNG in RGB with 8 bits, whose colours are the numbers of segments: get it anew"
        )
    table = {_get_colour(number): label for number, label in labels.items()}
    label, unknown = match_colours(read_samples(picture, mask.name, in_colour=True), table | {(0, 0, 0): IGNORE})
    if unknown:
        shown = ", ".join(
            f"{red + 256 * green + 65536 * blue} (in {count} pixels)"
            for (red, green, blue), count in unknown.most_common(_SHOWN)
        )
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise InputError(
            f"mask {mask.name} has numbers of segments that {file} does not list for it: {shown}{more}; both must be "
            "of the same release, and the mask not resized or compressed with loss"
        )
    return label


def _get_colour(number: int) -> Colour:
    """Return the colour that stands for a number in a mask."""
    return number & 255, number >> 8 & 255, number >> 16
