"""PASCAL-Context: every pixel of VOC 2010's training images, 59 classes and background (Mottaghi et al., CVPR 2014)."""

from pathlib import Path

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Outline, Request
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with VOC 2010 (VOC2010 or VOCdevkit, from VOCtrainval_03-May-2010.tar) and with trainval/*.mat of "
    "cs.stanford.edu/~roozbeh/pascal-context, here or in pascal-context/"
)
# The classes, and the number that each has among the 459 of the masks (labels.txt of the data set). Three have other
# names there: diningtable is table, clothes is cloth, bedcloth is bedclothes (the reference's pascalcontext_layers.py).
CLASSES = {
    "aeroplane": 2, "bicycle": 23, "bird": 25, "boat": 31, "bottle": 34, "bus": 45, "car": 59, "cat": 65, "chair": 72,
    "cow": 98, "diningtable": 397, "dog": 113, "horse": 207, "motorbike": 258, "person": 284, "pottedplant": 308,
    "sheep": 347, "sofa": 368, "train": 416, "tvmonitor": 427, "bag": 9, "bed": 18, "bench": 22, "book": 33,
    "building": 44, "cabinet": 46, "ceiling": 68, "clothes": 80, "computer": 85, "cup": 104, "door": 115, "fence": 144,
    "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "keyboard": 220, "light": 232,
    "mountain": 259, "mouse": 260, "curtain": 105, "platform": 296, "sign": 355, "plate": 295, "road": 324,
    "rock": 326, "shelves": 349, "sidewalk": 354, "sky": 360, "snow": 366, "bedcloth": 19, "track": 415, "tree": 420,
    "truck": 424, "wall": 440, "water": 445, "window": 454, "wood": 458,
}  # fmt: skip
LABELS = 459
CLASS_NAMES = ("background", *CLASSES)


def find(request: Request) -> Found:
    """Find the splits train (4,998 images) and val (5,105), by VOC 2010's lists in ImageSets/Main.

    Labels are those of the reference's pascalcontext_layers.py: 1 to 59 are the classes, and 0 is everything else,
    which counts as a class.

    Raises:
        InputError: no folder is given, or it lacks VOC 2010 or the masks.
    """
    dir = request.require_dir("pascal-context", LAYOUT)  # noqa: A001
    root = _find(dir, ("VOC2010", "VOCdevkit/VOC2010", "."), "ImageSets/Main/train.txt", "VOC 2010")
    masks = _find(dir, (".", "pascal-context"), "trainval", "the masks of PASCAL-Context") / "trainval"
    splits = {
        split: [
            Files(name, root / "JPEGImages" / f"{name}.jpg", masks / f"{name}.mat", "LabelMap")
            for name, *_ in read_list(root / "ImageSets/Main" / f"{split}.txt")
        ]
        for split in ("train", "val")
    }
    labels = dict.fromkeys(range(LABELS + 1), 0) | {number: place for place, number in enumerate(CLASSES.values(), 1)}
    return Found(CLASS_NAMES, splits, LabelMap(numbers=tuple(labels.items())))


def _find(dir: Path, places: tuple[str, ...], part: str, what: str) -> Path:  # noqa: A002
    for place in places:
        if (dir / place / part).exists():
            return dir / place
    raise InputError(f"{dir} does not hold {what} ({part}); give --data.dir, which is {LAYOUT}")


SOURCE = DataSource(
    name="pascal-context",
    size="10,103 images (4,998 train, 5,105 val)",
    licence="photographs from flickr, under flickr's terms of use",
    description="PASCAL-Context, 59 classes and background: --data.dir with VOC2010 and trainval/*.mat",
    # 400,000 images, as in the reference's pascalcontext-fcn32s/solve.py (50 times 8,000 steps of one image): 80
    # epochs. The images are VOC's, and so are the crop, the zoom and the rate.
    defaults=Defaults(crop=256, scale=(0.5, 2.0), steps=50_000, batch_size=8, learning_rate=0.02, eval_every=5_000),
    find=find,
    outline=Outline((len(CLASS_NAMES),), ("train", "val"), max_size=(500, 500)),
)
