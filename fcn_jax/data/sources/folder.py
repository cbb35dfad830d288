"""The user's own images and masks, in folders."""

import sys

from fcn_jax.data.inputs import COLOUR, Input
from fcn_jax.data.label_map import parse_label_map
from fcn_jax.data.sources.class_file import read_classes
from fcn_jax.data.sources.listing import list_pictures, pair_files, require_split_name
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Request
from fcn_jax.errors import InputError

# All channels of the image files, as they are stored. Mean and deviation are those of the split to train on.
BANDS = Input("bands", None, None)
ARRAYS = (".npy",)
LAYOUT = (
    "a folder with images/SPLIT/* and labels/SPLIT/* with the same stems, in sub-folders or not (labels: PNG with the "
    "class number of each pixel, 255 for void), and classes.txt with one class name per line, the first for label 0"
)


def find(request: Request) -> Found:
    """Find every split: train, val and test first, the others by name. Examples are in order of name.

    A split of images/ that labels/ does not have is one without labels.

    Raises:
        InputError: the folder is not given or has no splits, two inputs are asked for, or a split, class or entry of
            the label map is invalid.
    """
    dir = request.require_dir("folder", LAYOUT)  # noqa: A001
    if len(request.inputs) > 1:
        raise InputError(
            f"data.inputs is {' '.join(request.inputs)}; an example of folder has one image, so give colour, 8-bit "
            "RGB, or bands, any channels of 8 or 16 bits"
        )
    classes = read_classes(request.classes or dir / "classes.txt")
    label_map = parse_label_map(request.map, request.void, classes.names, classes.colours or ())
    kinds = {kind: {f.name for f in (dir / kind).glob("[!.]*") if f.is_dir()} for kind in ("images", "labels")}
    for split in sorted(kinds["labels"] - kinds["images"]):
        print(f"warning: labels/{split} is not used, because there is no images/{split}", file=sys.stderr)
    for split in kinds["images"]:
        require_split_name(split, dir)
    first = [split for split in ("train", "val", "test") if split in kinds["images"]]
    splits, unlabelled = {}, {}
    arrays = ARRAYS if request.inputs == (BANDS.name,) else ()
    for split in (*first, *sorted(kinds["images"].difference(first))):
        images, labels = dir / "images" / split, dir / "labels" / split
        if split in kinds["labels"]:
            splits[split] = pair_files(images, labels, request.label_suffix, arrays)
        elif files := list_pictures(images, arrays):
            unlabelled[split] = files
    if not splits and not unlabelled:
        raise InputError(f"{dir} has no split with images; it should be {LAYOUT}")
    return Found(classes.names, splits, label_map, classes.colours, unlabelled)


SOURCE = DataSource(
    name="folder",
    size="any",
    licence="yours",
    description="images of your own: --data.dir with images/SPLIT/*, labels/SPLIT/*.png and classes.txt",
    # The values of CamVid, whose size is common for data sets of users.
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
    takes_map=True,
    inputs=(COLOUR, BANDS),
)
