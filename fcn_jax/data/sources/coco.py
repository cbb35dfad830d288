"""Images of the user's own with outlines in COCO's format, as CVAT, Label Studio and Roboflow export it.

COCO itself has this layout, too: annotations/instances_train2017.json and train2017/*.jpg.
"""

import os
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from fcn_jax.data.sources.coco_file import CocoFile, draw_outlines, read_coco_file
from fcn_jax.data.sources.listing import require_split_name
from fcn_jax.data.sources.outlined_classes import number_classes
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outlined, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with a JSON file of instances for each split: annotations/instances_SPLIT.json (COCO, CVAT), "
    "SPLIT/_annotations.coco.json (Roboflow) or result.json (Label Studio), and the images beside it, in images, in "
    "SPLIT or in images/SPLIT"
)
_WITHOUT_NAME = ("_annotations.coco", "annotations", "default", "instances", "result")
_NAMES = {"valid": "val", "train2017": "train", "val2017": "val", "train2014": "train", "val2014": "val"}


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
        folders = _list_folders(dir, files[split], split)
        splits[split] = [
            Outlined(
                _name_example(image.path),
                _find_image(image.path, folders),
                files[split],
                image.shape,
                partial(draw_outlines, image.outlines, image.shape, classes.labels, files[split].name),
            )
            for image in content.images
        ]
    return Found(classes.names, splits, colours=classes.colours)


def _list_files(dir: Path) -> dict[str, Path]:  # noqa: A002
    """List the file of each split: train, val and test first."""
    files = [file for pattern in ("*.json", "*/*.json") for file in sorted(dir.glob(pattern)) if file.name[0] != "."]
    # COCO has files of captions and key points beside those of instances.
    files = [file for file in files if file.name.startswith("instances_")] or files
    found: dict[str, Path] = {}
    for file in files:
        split = file.stem.removeprefix("instances_")
        if split in _WITHOUT_NAME:
            split = "train" if file.parent in (dir, dir / "annotations") else file.parent.name
        split = _NAMES.get(split, split)
        require_split_name(split, dir)
        if split in found:
            raise InputError(f"{found[split]} and {file} are both of the split {split}; move one of them away")
        found[split] = file
    if not found:
        raise InputError(f"{dir} has no file of instances; it should be {LAYOUT}")
    first = [split for split in ("train", "val", "test") if split in found]
    return {split: found[split] for split in (*first, *(split for split in found if split not in first))}


def _list_folders(dir: Path, file: Path, split: str) -> list[Path]:  # noqa: A002
    """List the folders that the images of a split may be in."""
    names = dict.fromkeys((file.stem.removeprefix("instances_"), split))
    return [file.parent, dir, dir / "images", *(root / name for name in names for root in (dir, dir / "images"))]


def _find_image(path: PurePosixPath, folders: list[Path]) -> Path:
    """Find an image by its path in one of the folders, or by its name alone, as where a path is of another machine."""
    ways = [path.name] if _leads_out(path) else [path, path.name]
    places = [folder / way for way in ways for folder in folders]
    return next((place for place in places if os.path.isfile(place)), places[0])


def _name_example(path: PurePosixPath) -> str:
    return path.stem if _leads_out(path) else path.with_suffix("").as_posix()


def _leads_out(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", path.parts[0]))


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
    splits="any",
    classes="any",
    size="any",
    licence="yours",
    description="images of your own with outlines in COCO's format, as exported by CVAT, Label Studio, Roboflow: "
    "--data.dir with a JSON file per split",
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
)
