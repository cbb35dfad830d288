"""Images with panoptic masks in COCO's format: COCO panoptic 2017 (Kirillov et al., CVPR 2019), or of the user's own.

The semantic label of a pixel is the category of its segment. Which object it belongs to is not used.
"""

from functools import partial
from pathlib import Path

from fcn_jax.data.sources.coco_images import find_file, find_files, key_by_split, list_folders, name_example
from fcn_jax.data.sources.panoptic_file import Category, PanopticFile, label_segments, read_panoptic_file
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outlined, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with annotations/panoptic_SPLIT.json for each split, its masks annotations/panoptic_SPLIT/*.png, and the "
    "images in SPLIT or images/SPLIT; for COCO unpack train2017.zip, val2017.zip and "
    "panoptic_annotations_trainval2017.zip of cocodataset.org into one folder, then unpack panoptic_train2017.zip and "
    "panoptic_val2017.zip inside its folder annotations"
)
_PREFIX = "panoptic_"
_WITHOUT_MASKS = "panoptic_image_info_"  # lists of test images, as MMDetection makes them


def find(request: Request) -> Found:
    """Find the split of every file of panoptic annotations. Examples are in the order of its images.

    The classes are the categories in the order of their numbers, with their colours if each of them has one.

    Raises:
        InputError: no folder is given, it has no such file, one that is invalid, or no folder of its masks, or two
            files have different categories.
    """
    dir = request.require_dir("panoptic", LAYOUT)  # noqa: A001
    files = _list_files(dir)
    contents = {split: read_panoptic_file(file) for split, file in files.items()}
    categories = _get_categories({files[split].name: content for split, content in contents.items()})
    order = sorted(categories, key=lambda number: (isinstance(number, str), number))
    labels = {number: label for label, number in enumerate(order)}
    colours = [colour for number in order if (colour := categories[number].colour)]
    splits = {}
    for split, content in contents.items():
        file = files[split]
        mask_folder = _find_masks(dir, file)
        folders = list_folders(dir, file, (file.stem.removeprefix(_PREFIX), split))
        places = find_files((image.path for image in content.images), folders, file)
        splits[split] = []
        for image, place in zip(content.images, places, strict=True):
            mask = find_file(image.mask, [mask_folder])
            meant = {number: labels[category] for number, category in image.segments.items()}
            splits[split].append(
                Outlined(
                    name_example(image.path),
                    place,
                    file,
                    image.shape,
                    partial(label_segments, mask, meant, image.shape, file.name),
                    mask,
                )
            )
    names = tuple(categories[number].name for number in order)
    return Found(names, splits, colours=tuple(colours) if len(colours) == len(names) else None)


def _list_files(dir: Path) -> dict[str, Path]:  # noqa: A002
    """List the file of each split: train, val and test first."""
    found = [file for pattern in (f"{_PREFIX}*.json", f"*/{_PREFIX}*.json") for file in sorted(dir.glob(pattern))]
    files = [file for file in found if not file.name.startswith(_WITHOUT_MASKS)]
    if not files:
        raise InputError(f"{dir} has no file panoptic_SPLIT.json; give --data.dir, which is {LAYOUT}")
    return key_by_split([(file.stem.removeprefix(_PREFIX), file) for file in files], dir)


def _find_masks(dir: Path, file: Path) -> Path:  # noqa: A002
    """Find the folder of the masks, which has the name of the JSON file."""
    places = (file.parent, dir, dir / "annotations")
    folder = next((place / file.stem for place in places if (place / file.stem).is_dir()), None)
    if folder is None:
        raise InputError(
            f"{file.parent} has no folder {file.stem} with the masks of {file.name}; unpack {file.stem}.zip there"
        )
    inner = folder / file.stem  # some programs unpack an archive into a folder of its name
    return inner if inner.is_dir() else folder


def _get_categories(contents: dict[str, PanopticFile]) -> dict[int | str, Category]:
    """Return the categories, which are the same in all files."""
    (first, content), *others = contents.items()
    for name, other in others:
        if other.categories != content.categories:
            raise InputError(
                f"{first} and {name} do not have the same categories; a class is the same in all splits, so give both "
                "files the same numbers, names and colours"
            )
    return content.categories


SOURCE = DataSource(
    name="panoptic",
    size="any (COCO: 118,287 train, 5,000 val, 133 classes; 20 GB)",
    licence="yours (COCO: annotations under CC BY 4.0, photographs under flickr's terms of use)",
    description="panoptic masks in COCO's format, those of COCO 2017 or your own: --data.dir with annotations and the "
    "images",
    # COCO's 118 287 images: 11 epochs, as many as the 80 000 steps of 16 that mmsegmentation takes on COCO-Stuff.
    defaults=Defaults(crop=256, scale=(0.5, 2.0), steps=160_000, batch_size=8, learning_rate=0.02, eval_every=16_000),
    find=find,
)
