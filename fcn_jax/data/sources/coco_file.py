"""Read a file of instances in COCO's format (cocodataset.org/#format-data)."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.labels import IGNORE
from fcn_jax.data.regions import Region, crop_mask, draw_regions, fill_polygons
from fcn_jax.data.run_lengths import decode_run_lengths
from fcn_jax.data.sources.coco_images import read_images
from fcn_jax.data.sources.json_parts import get_name, get_part, read_json, read_points
from fcn_jax.errors import InputError


class Outline(NamedTuple):
    """An annotation.

    Attributes:
        number: what the file calls it, for messages.
        category: the name of its category.
        is_crowd: whether it encloses a group of objects that are not told apart.
        segmentation: polygons or run lengths as they are in the file.
    """

    number: Any
    category: str
    is_crowd: bool
    segmentation: Any


class ListedImage(NamedTuple):
    """An image with its annotations.

    Attributes:
        path: the path of its file, which may be that on another machine.
        shape: height and width.
        outlines: its annotations, in the file's order.
    """

    path: PurePosixPath
    shape: tuple[int, int]
    outlines: list[Outline]


class CocoFile(NamedTuple):
    """The content of a file: the names of its categories, in the order of their numbers, and its images."""

    categories: list[str]
    images: list[ListedImage]


def read_coco_file(file: Path) -> CocoFile:
    """Read a file of instances.

    A category without annotations is left out if others have it as their supercategory: Roboflow adds such a one.

    Raises:
        InputError: the file is not of COCO's format, or an annotation belongs to no image or no category.
    """
    content = read_json(file)
    categories, annotations = (get_part(content, key, (list,), file.name) for key in ("categories", "annotations"))
    names: dict[Any, str] = {}
    for category in categories:
        number = get_part(category, "id", (int, str), f"a category in {file.name}")
        where = f"category {number!r} in {file.name}"
        name = get_name(category, "name", where)
        if names.setdefault(number, name) != name:
            raise InputError(f"{where} has two names, {names[number]} and {name}; give each number one name")
    images = read_images(content, file.name)
    listed = {number: ListedImage(image.path, image.shape, []) for number, image in images.items()}
    for annotation in annotations:
        number = annotation.get("id") if isinstance(annotation, dict) else None
        where = f"annotation {number!r} in {file.name}"
        image, category = (get_part(annotation, key, (int, str), where) for key in ("image_id", "category_id"))
        if image not in listed or category not in names:
            raise InputError(
                f"{where} belongs to the image {image!r} and the category {category!r}, which are not both in the "
                "file; remove it, or add them"
            )
        outline = Outline(number, names[category], bool(annotation.get("iscrowd")), annotation.get("segmentation"))
        listed[image].outlines.append(outline)
    used = {outline.category for image in listed.values() for outline in image.outlines}
    parents = {c.get("supercategory") for c in categories if isinstance(c.get("supercategory"), str)}
    parents -= {c["name"] for c in categories if c.get("supercategory") == c["name"]}
    order = sorted(names, key=lambda number: (isinstance(number, str), number))
    kept = [names[number] for number in order if names[number] in used or names[number] not in parents]
    return CocoFile(kept, list(listed.values()))


def draw_outlines(
    outlines: Sequence[Outline], shape: tuple[int, int], labels: Mapping[str, int], file: str
) -> UInt8[np.ndarray, "height width"]:
    """Draw annotations on a mask of zeros, those of fewer pixels over those of more, and later over earlier ones.

    COCO says nothing of the order. A small object on a large one is seen in front of it, or is a part of it. A crowd is
    void, because its outline is coarse and has ground between the objects.

    Args:
        outlines: the annotations of an image.
        shape: height and width of the image.
        labels: the label of each category.
        file: the name of the file, for messages.

    Raises:
        InputError: an annotation has no outline, or one that is invalid.
    """
    regions = [
        (
            IGNORE if outline.is_crowd else labels[outline.category],
            _fill(outline.segmentation, shape, f"annotation {outline.number!r} in {file}"),
        )
        for outline in outlines
    ]
    return draw_regions(sorted(regions, key=lambda pair: -np.count_nonzero(pair[1].inside)), shape)


def _fill(segmentation: Any, shape: tuple[int, int], where: str) -> Region:
    """Return the region of a segmentation: polygons, whose pixels are added up, or run lengths."""
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != list(shape) or not isinstance(counts, list | str):
            raise InputError(f"{where} has run lengths without counts or of the size {size!r:.40}, not of its image")
        try:
            return crop_mask(decode_run_lengths(counts, *shape))
        except InputError as error:
            raise InputError(f"{where} has {error}; export it anew") from error
    if not segmentation or not isinstance(segmentation, list):
        raise InputError(
            f"{where} has no outline, as those of boxes; draw it as a polygon or a mask, or remove the annotation"
        )
    polygons = [read_points(polygon, where) for polygon in segmentation]
    if max(map(len, polygons)) < 3:
        raise InputError(
            f"{where} has no polygon of three points or more; a polygon is one list [x, y, x, y, x, y, ...]: draw or "
            "export it anew, or remove the annotation"
        )
    return fill_polygons(polygons, *shape)
