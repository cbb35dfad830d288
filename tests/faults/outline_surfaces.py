"""Files of outlines, which are read, and drawn on the size of the image beside them."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

from faults.harness import Surface
from faults.image_surfaces import PNGS, encode  # pictures of 30x20 pixels
from faults.mutations import damage_json
from PIL import Image

from fcn_jax.data.checks import read_outlined
from fcn_jax.data.large_images import make_room
from fcn_jax.data.sources import coco, labelme
from fcn_jax.data.sources.source import Found, Request

IMAGE = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
CATEGORIES = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}]
POLYGON = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 25.5, 3, 9, 18], [2, 2, 4, 2, 4, 9]]}
RUNS = {"size": [20, 30], "counts": [100, 50, 450]}
PACKED = {"size": [20, 30], "counts": "T3b1R>"}  # the same runs


def write_instances(*annotations: dict) -> bytes:
    return json.dumps({"images": [IMAGE], "annotations": annotations, "categories": CATEGORIES}).encode()


def draw_all(find: Callable[[Request], Found]) -> Callable[[Path], None]:
    """Return what draws the masks of all examples in the folder of a file."""

    def read(file: Path) -> None:
        file.with_name("a.png").write_bytes(PNGS[0])
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
SURFACES = [
    Surface("outlines of COCO", INSTANCES, draw_all(coco.find), damage_json, "train.json"),
    Surface("outlines of labelme", SHAPES, draw_all(labelme.find), damage_json, "a.json"),
]
