"""Images of the user's own in the layout of PASCAL VOC, as CVAT, labelme and others export it."""

import unicodedata
from pathlib import Path

from fcn_jax.data.label_map import parse_label_map
from fcn_jax.data.sources.class_file import read_classes
from fcn_jax.data.sources.listing import pair_files, read_list, require_split_name
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Request
from fcn_jax.errors import InputError

LISTS = "ImageSets/Segmentation"
_MASKS = ("SegmentationClassPNG", "SegmentationClass")  # the first is labelme's, which may have .npy in the second
CLASS_FILES = ("classes.txt", "labelmap.txt", "class_names.txt")
LAYOUT = (
    f"a folder with JPEGImages/*, {' or '.join(_MASKS)}/*.png with the same stems, {LISTS}/SPLIT.txt with a name per "
    f"line (without lists all images are the split train), and {' or '.join(CLASS_FILES)}, or --data.classes"
)


def find(request: Request) -> Found:
    """Find the split of every list, or the split train of all images if there are no lists.

    Raises:
        InputError: the folder is not given, lacks images, masks or classes, or has a list or class that is invalid.
    """
    root = request.require_dir("voc", LAYOUT)
    masks = next((root / name for name in _MASKS if (root / name).is_dir()), None)
    if masks is None or not (root / "JPEGImages").is_dir():
        raise InputError(f"{root} has not the layout of PASCAL VOC; give --data.dir, which is {LAYOUT}")
    file = request.classes or next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if file is None:
        raise InputError(f"{root} does not name its classes; give --data.classes a file with one name per line")
    classes = read_classes(file)
    label_map = parse_label_map(request.map, request.void, classes.names, classes.colours or ())
    pairs = pair_files(root / "JPEGImages", masks, request.label_suffix)
    lists = {list_.stem: list_ for list_ in sorted((root / LISTS).glob("[!.]*.txt"))}
    for split in lists:
        require_split_name(split, root)
    by_name: dict[str, list[Files]] = {}
    for pair in pairs:
        by_name.setdefault(pair.name, []).append(pair)

    def find_named(words: list[str]) -> list[Files]:
        """Find the examples of a line: paths, or a name, which may have blanks and may be followed by numbers."""
        if listed := find_listed(words, root):
            return [listed]
        # VOC's lists of a class have -1, 0 or 1 after each name.
        name = words[0] if set(words[1:]) <= {"-1", "0", "1"} else " ".join(words)
        for known in (" ".join(words), name):
            if found := by_name.get(unicodedata.normalize("NFC", known)):  # as in `by_name`
                return found
        return [Files(name, root / "JPEGImages" / f"{name}.jpg", masks / f"{name}{request.label_suffix}.png")]

    splits = {
        split: [example for words in read_list(list_) for example in find_named(words)]
        for split, list_ in lists.items()
    }
    return Found(classes.names, splits or {"train": pairs}, label_map, classes.colours)


def find_listed(words: list[str], root: Path) -> Files | None:
    """Find the example of a line with two paths, as /JPEGImages/a.jpg /SegmentationClassAug/a.png; None for a name."""
    if len(words) < 2 or "/" not in words[0] or "/" not in words[1]:
        return None
    image, mask = (root / word.lstrip("/") for word in words[:2])
    return Files(image.stem, image, mask)


SOURCE = DataSource(
    name="voc",
    size="any",
    licence="yours",
    description="images of your own as exported by CVAT, labelme and others: --data.dir with JPEGImages, "
    "SegmentationClass, ImageSets/Segmentation/SPLIT.txt and labelmap.txt",
    defaults=Defaults(crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500),
    find=find,
    takes_classes=True,
    takes_map=True,
)
