"""Files of outlines and of segments, from which masks are drawn on the size of the image beside them."""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from faults.harness import Surface
from faults.image_surfaces import PNGS, encode  # pictures of 30x20 pixels
from faults.mutations import damage_json
from PIL import Image

from fcn_jax.data.checks import read_outlined
from fcn_jax.data.large_images import make_room
from fcn_jax.data.sources import coco, labelme, panoptic
from fcn_jax.data.sources.panoptic_file import label_segments
from fcn_jax.data.sources.source import Found, Request

IMAGE = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
CATEGORIES = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}]
POLYGON = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 25.5, 3, 9, 18], [2, 2, 4, 2, 4, 9]]}
RUNS = {"size": [20, 30], "counts": [100, 50, 450]}
PACKED = {"size": [20, 30], "counts": "T3b1R>"}  # the same runs


def write_instances(*annotations: dict) -> bytes:
    return json.dumps({"images": [IMAGE], "annotations": annotations, "categories": CATEGORIES}).encode()


def draw_all(find: Callable[[Request], Found], others: Mapping[str, bytes]) -> Callable[[Path], None]:
    """Return what draws the masks of all examples in the folder of a file, in which it puts other files."""

    def read(file: Path) -> None:
        for name, data in others.items():
            (file.parent / name).parent.mkdir(exist_ok=True)
            (file.parent / name).write_bytes(data)
        for examples in find(Request(file.parent, file.parent)).splits.values():
            for example in examples:
                with make_room(example.image):
                    read_outlined(example)

    return read


INSTANCES = [
    write_instances(),
    write_instances(POLYGON),
    write_instances(POLYGON, {**POLYGON, "segmentation": RUNS, "iscrowd": 1}),
    write_instances({**POLYGON, "segmentation": PACKED}),
]


def write_shapes(*shapes: dict) -> bytes:
    own = {
        "version": "5.5.0",
        "flags": {},
        "imageData": None,
        "imagePath": "a.png",
        "imageHeight": 20,
        "imageWidth": 30,
    }
    return json.dumps({**own, "shapes": shapes}).encode()


MASK = base64.b64encode(encode(Image.new("L", (8, 5), 1), "PNG")).decode()
SHAPE = {"label": "cat", "points": [[1, 1], [25.5, 3], [9, 18]], "group_id": None, "shape_type": "polygon", "flags": {}}
SHAPES = [
    write_shapes(),
    write_shapes(SHAPE, {**SHAPE, "label": "__ignore__"}),
    write_shapes({**SHAPE, "shape_type": "circle", "points": [[5, 5], [9, 9]]}),
    write_shapes({**SHAPE, "shape_type": "mask", "points": [[-2, 5], [5, 9]], "mask": MASK}),
]
NUMBERS = np.zeros((20, 30, 3), np.uint8)
NUMBERS[2:9, 3:], NUMBERS[12:, :9] = (1, 0, 0), (112, 17, 1)
SEGMENTS = {1: 0, 70_000: 1}  # number: label
MASKS = [encode(Image.fromarray(NUMBERS), "PNG"), encode(Image.fromarray(NUMBERS), "PNG", compress_level=0)]
SEGMENTED = {
    "image_id": 1,
    "file_name": "m.png",
    "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 1}, {"id": 70_000, "category_id": 2, "iscrowd": 0}],
}
COLOURED = [{**CATEGORIES[0], "isthing": 1, "color": [9, 8, 7]}, {**CATEGORIES[1], "isthing": 0, "color": [1, 2, 3]}]
PANOPTIC = [
    json.dumps({"images": [IMAGE], "annotations": [SEGMENTED], "categories": categories}).encode()
    for categories in (CATEGORIES, COLOURED)
]


def label_mask(file: Path) -> None:
    label_segments(file, SEGMENTS, (20, 30), "panoptic_train.json")


IMAGE_FILE = {"a.png": PNGS[0]}
SURFACES = [
    Surface("outlines of COCO", INSTANCES, draw_all(coco.find, IMAGE_FILE), damage_json, "train.json"),
    Surface("outlines of labelme", SHAPES, draw_all(labelme.find, IMAGE_FILE), damage_json, "a.json"),
    Surface(
        "segments of panoptic masks",
        PANOPTIC,
        draw_all(panoptic.find, {**IMAGE_FILE, "panoptic_train/m.png": MASKS[0]}),
        damage_json,
        "panoptic_train.json",
    ),
    Surface("panoptic masks", MASKS, label_mask),
]
