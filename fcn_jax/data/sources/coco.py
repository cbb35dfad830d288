"""Images of the user's own with outlines in COCO's format, as CVAT, Label Studio and Roboflow export it.

COCO itself has this layout, too: annotations/instances_train2017.json and train2017/*.jpg.
"""

import sys
from collections import Counter
from functools import partial
from pathlib import Path

from fcn_jax.data.sources.coco_file import CocoFile, draw_outlines, read_coco_file
from fcn_jax.data.sources.coco_images import find_files, key_by_split, list_folders, name_example
from fcn_jax.data.sources.outlined_classes import number_classes
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outlined, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with a JSON file of instances for each split: annotations/instances_SPLIT.json (COCO, CVAT), "
    "SPLIT/_annotations.coco.json (Roboflow) or result.json (Label Studio), and the images beside it, in images, in "
    "SPLIT or in images/SPLIT"
)
_WITHOUT_NAME = ("_annotations.coco", "annotations", "default", "instances", "result")


def find(request: Request) -> Found:
    """Find the split of every file of instances. Images without annotations are examples of the background.

    The classes are the categories in the order of their numbers, or of `--data.classes`, after the background.

    Raises:
        InputError: no folder is given, or it has no file of instances, or one that is invalid.
    """
    dir = request.require_dir("coco", LAYOUT)  # noqa: A001
    files = _list_files(dir)
    contents = {split: read_coco_file(file) for split, file in files.items()}
    classes = number_classes((name for content in contents.values() for name in content.categories), request.classes)
    splits = {}
    for split, content in contents.items():
        _warn_of_crowds(files[split], content)
        folders = list_folders(dir, files[split], (files[split].stem.removeprefix("instances_"), split))
        places = find_files((image.path for image in content.images), folders, files[split])
        splits[split] = [
            Outlined(
                name_example(image.path),
                place,
                files[split],
                image.shape,
                partial(draw_outlines, image.outlines, image.shape, classes.labels, files[split].name),
            )
            for image, place in zip(content.images, places, strict=True)
        ]
    return Found(classes.names, splits, colours=classes.colours)


def _list_files(dir: Path) -> dict[str, Path]:  # noqa: A002
    """List the file of each split: train, val and test first."""
    files = [file for pattern in ("*.json", "*/*.json") for file in sorted(dir.glob(pattern)) if file.name[0] != "."]
    # COCO has files of captions and key points beside those of instances.
    files = [file for file in files if file.name.startswith("instances_")] or files
    if not files:
        raise InputError(f"{dir} has no file of instances; it should be {LAYOUT}")
    return key_by_split([(_name_split(file, dir), file) for file in files], dir)


def _name_split(file: Path, dir: Path) -> str:  # noqa: A002
    """Return what a file says of its split, in its name or that of its folder."""
    split = file.stem.removeprefix("instances_")
    if split not in _WITHOUT_NAME:
        return split
    return "train" if file.parent in (dir, dir / "annotations") else file.parent.name


def _warn_of_crowds(file: Path, content: CocoFile) -> None:
    """Warn of categories of which most annotations are crowds: CVAT says so of everything drawn with its brush."""
    outlines = [outline for image in content.images for outline in image.outlines]
    counts = Counter(outline.category for outline in outlines)
    crowds = Counter(outline.category for outline in outlines if outline.is_crowd)
    if names := [name for name in content.categories if 2 * crowds[name] > counts[name]]:
        print(
            f"warning: {file.name}: most annotations of {', '.join(names)} have iscrowd 1, so they are void; CVAT "
            "gives it to masks of its brush: if they are objects, set it to 0 in the file",
            file=sys.stderr,
        )


SOURCE = DataSource(
    name="coco",
    size="any",
    licence="yours",
    description="images of your own with outlines in COCO's format, as exported by CVAT, Label Studio, Roboflow: "
    "--data.dir with a JSON file per split",
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
)
