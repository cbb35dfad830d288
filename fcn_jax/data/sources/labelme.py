"""Images of the user's own with the outlines that labelme writes: a JSON file beside each image.

labelme's own program (`shapes_to_label` of github.com/wkentaro/labelme) draws the shapes in this order, too.
"""

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.image_kinds import open_image, split_by_kind
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.regions import Region, crop_mask, draw_regions, fill_disc, fill_polygons
from fcn_jax.data.sources.json_parts import get_name, get_part, get_path, read_json, read_points
from fcn_jax.data.sources.listing import compose_letters, list_files, require_split_name
from fcn_jax.data.sources.outlined_classes import number_classes
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outlined, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with the images and the JSON files of labelme beside them, in a sub-folder for each split; without "
    "sub-folders all are the split train"
)
CLASS_FILES = ("labels.txt", "classes.txt", "class_names.txt")
VOID_NAME = "__ignore__"  # labelme's name of what has no class
_LISTED = 10  # files that an error names


class Annotated(NamedTuple):
    """The content of a JSON file: the path of the image, height and width, and the shapes with their labels."""

    image: Path
    shape: tuple[int, int]
    outlines: list[tuple[str, Any]]


def find(request: Request) -> Found:
    """Find the images that have a JSON file, in the order of its name. The name of a sub-folder is that of a split.

    The classes are those of `--data.classes`, or of labels.txt in the folder, or all labels in the order of the
    alphabet, after the background.

    Raises:
        InputError: no folder is given, or it has no JSON files, or some that are invalid.
    """
    dir = request.require_dir("labelme", LAYOUT)  # noqa: A001
    files = _list_files(dir)
    contents: dict[Path, Annotated] = {}
    problems = []
    for file in (file for members in files.values() for file in members):
        try:
            contents[file] = read_shapes(file)
        except InputError as error:
            problems.append(str(error))
    if problems:
        more = f"\nand {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError("\n".join(problems[:_LISTED]) + more)
    _warn_of_others(dir, [content.image for content in contents.values()])
    names = sorted({label for content in contents.values() for label, _ in content.outlines} - {VOID_NAME})
    own = next((dir / name for name in CLASS_FILES if (dir / name).is_file()), None)
    classes = number_classes(names, request.classes or own)
    labels = classes.labels | {VOID_NAME: IGNORE}
    splits = {
        split: [
            Outlined(
                name,
                contents[file].image,
                file,
                contents[file].shape,
                partial(draw_shapes, contents[file].outlines, contents[file].shape, labels, file.name),
            )
            for name, (file,) in compose_letters(members, dir if members[0].parent == dir else dir / split).items()
        ]
        for split, members in files.items()
    }
    return Found(classes.names, splits, colours=classes.colours)


def _list_files(dir: Path) -> dict[str, list[Path]]:  # noqa: A002
    """List the JSON files of each split: train, val and test first."""
    found: dict[str, list[Path]] = {}
    for file in list_files(dir):
        place = file.relative_to(dir).parts
        if file.suffix == ".json":
            found.setdefault(place[0] if len(place) > 1 else "", []).append(file)
    if "" in found and "train" in found:
        raise InputError(f"{dir} has JSON files, and its folder train has, too; move the former into folders of splits")
    if "" in found:
        found["train"] = found.pop("")
    if not found:
        raise InputError(f"{dir} has no JSON files; it should be {LAYOUT}")
    for split in found:
        require_split_name(split, dir)
    first = [split for split in ("train", "val", "test") if split in found]
    return {split: found[split] for split in (*first, *(split for split in found if split not in first))}


def _warn_of_others(dir: Path, used: list[Path]) -> None:  # noqa: A002
    """Warn of images that have no JSON file."""
    images, _ = split_by_kind(list_files(dir))
    known = {os.path.normpath(image) for image in used}
    if others := [image for image in images if os.path.normpath(image) not in known]:
        print(
            f"warning: {dir}: left out are images without a JSON file, {len(others)} in all, as {others[0].name}; for "
            "an image without objects save a file without shapes",
            file=sys.stderr,
        )


def read_shapes(file: Path) -> Annotated:
    """Read a JSON file of labelme, without the image that it may have within it.

    Raises:
        InputError: it is not of labelme's form.
    """
    content = read_json(file)
    height, width = (get_part(content, key, (int,), str(file)) for key in ("imageHeight", "imageWidth"))
    if min(height, width) < 1:
        raise InputError(f"{file} has the size {width}x{height}; save it anew with labelme")
    path = get_path(content, "imagePath", str(file))
    beside = file.parent / path.name
    image = Path(os.path.normpath(file.parent / path))
    outlines = [
        (get_name(shape, "label", f"a shape in {file}"), shape)
        for shape in get_part(content, "shapes", (list,), str(file))
    ]
    return Annotated(image if os.path.isfile(image) else beside, (height, width), outlines)


def draw_shapes(
    outlines: Sequence[tuple[str, Any]], shape: tuple[int, int], labels: Mapping[str, int], file: str
) -> UInt8[np.ndarray, "height width"]:
    """Draw the shapes of a file on a mask of zeros, later ones over earlier ones.

    Args:
        outlines: the shapes with their labels.
        shape: height and width of the image.
        labels: the label of each name.
        file: the name of the file, for messages.

    Raises:
        InputError: a shape has no area, as a line, or its points are invalid.
    """
    regions = (
        (labels[name], _fill(outline, shape, f"shape {place} ({name}) in {file}"))
        for place, (name, outline) in enumerate(outlines, 1)
    )
    return draw_regions(regions, shape)


def _fill(outline: dict[str, Any], shape: tuple[int, int], where: str) -> Region:
    corners = get_part(outline, "points", (list,), where)
    pairs = all(isinstance(corner, list) and len(corner) == 2 for corner in corners)
    points = read_points([value for corner in corners for value in corner] if pairs else None, where)
    kind = outline.get("shape_type") or "polygon"
    if (kind in ("polygon", "oriented_rectangle") and len(points) > 2) or (kind == "rectangle" and len(points) == 4):
        return fill_polygons([points], *shape)
    if kind in ("rectangle", "circle", "mask") and len(points) == 2:
        (x1, y1), (x2, y2) = points.tolist()
        if kind == "rectangle":
            return fill_polygons([np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])], *shape)
        if kind == "circle":  # its centre and a point of its border
            return fill_disc(x1, y1, float(np.hypot(x2 - x1, y2 - y1)), *shape)
        return _place_mask(get_part(outline, "mask", (str,), where), round(y1), round(x1), shape, where)
    raise InputError(
        f"{where} is a {kind!r} of {len(points)} points, which has no area; draw it as a polygon, or remove it"
    )


def _place_mask(text: str, top: int, left: int, shape: tuple[int, int], where: str) -> Region:
    """Return the pixels of a mask, a PNG in base64, whose first pixel has a place in the image."""
    try:
        with open_image(io.BytesIO(base64.b64decode(text))) as image:
            if image.width > shape[1] or image.height > shape[0] or image.mode not in ("1", "L"):
                raise ValueError(f"it has {image.width}x{image.height} pixels of mode {image.mode}")
            mask = np.asarray(image) > 0
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError(f"{where} has a mask that cannot be read ({error}); save it anew with labelme") from error
    row, column = max(-top, 0), max(-left, 0)
    within = mask[row : max(shape[0] - top, 0), column : max(shape[1] - left, 0)]
    cropped = crop_mask(within)
    return Region(cropped.top + top + row, cropped.left + left + column, cropped.inside)


SOURCE = DataSource(
    name="labelme",
    size="any",
    licence="yours",
    description="images of your own with outlines of labelme: --data.dir with a JSON file beside each image",
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
)
