"""Files about all segmented images of a folder, made from the masks there: pixel counts and regions."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.inference.coco_regions import describe_regions
from fcn_jax.inference.outputs import COUNTS, POLYGONS, Outputs, read_class_map
from fcn_jax.runtime.files import replace_atomically


def write_summaries(files: Sequence[Path], out: Path, outputs: Outputs) -> None:
    """Write the summaries that are wanted, from the masks of all images. Those of further tasks end with `_TASK`.

    Args:
        files: the images, in the order of the summaries.
        out: the folder that has their masks.
        outputs: what was written for each image.

    Raises:
        InputError: a summary cannot be written, or a mask cannot be read.
    """
    for suffix, part in outputs.split_tasks():
        masks = [out / f"{file.stem}{suffix}.png" for file in files]
        for wanted, write, name in (
            (outputs.counts, write_counts, COUNTS.format(suffix)),
            (outputs.polygons, write_polygons, POLYGONS.format(suffix)),
        ):
            try:
                if wanted:
                    write(files, masks, part, out / name)
            except OSError as error:
                raise InputError(
                    f"{out / name} cannot be written ({error}); make room, or give another --out"
                ) from error


def write_counts(files: Sequence[Path], masks: Sequence[Path], outputs: Outputs, target: Path) -> None:
    """Write a CSV table with a row for each image: its name and the number of pixels of each class."""
    with (
        replace_atomically(target) as temporary,
        # The name of a file may be no UTF-8.
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", *outputs.class_names])
        for file, mask in zip(files, masks, strict=True):
            class_map = read_class_map(mask, outputs)
            counts = np.bincount(class_map.ravel(), minlength=len(outputs.class_names))
            table.writerow([file.name, *counts.tolist()])


def write_polygons(files: Sequence[Path], masks: Sequence[Path], outputs: Outputs, target: Path) -> None:
    """Write a JSON file in COCO's format: `images`, `categories`, and in `annotations` each region of one class.

    See `coco_regions.describe_regions`. All numbers begin at 1; the category of a class is its index plus 1.
    """
    images, annotations = [], []
    for number, (file, mask) in enumerate(zip(files, masks, strict=True), 1):
        class_map = read_class_map(mask, outputs)
        height, width = class_map.shape
        images.append({"id": number, "file_name": file.name, "height": height, "width": width})
        for region in describe_regions(class_map):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **region})
    categories = [{"id": number, "name": name} for number, name in enumerate(outputs.class_names, 1)]
    with replace_atomically(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, stream)
