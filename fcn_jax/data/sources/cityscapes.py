"""Cityscapes, street scenes of 50 cities with fine annotations: 19 classes, 2048x1024 (Cordts et al., CVPR 2016)."""

from pathlib import Path

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Outline, Request, Submission
from fcn_jax.errors import InputError

LAYOUT = (
    "a folder with leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelIds.png; "
    "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from www.cityscapes-dataset.com, which asks you to "
    "register, and unpack both into one folder"
)
IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
IDS = 34  # numbers in the masks; a licence plate, -1, is not drawn
# Number in the masks and colour of the classes that are evaluated, in the order of their train ids
# (cityscapesscripts/helpers/labels.py of github.com/mcordts/cityscapesScripts). All other numbers are void.
CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}


def find(request: Request) -> Found:
    """Find the splits train, val and test, if they exist. Examples are in order of name.

    The split test has images without labels, because its official masks have no classes.

    Raises:
        InputError: no folder is given, or it has none of the splits.
    """
    dir = request.require_dir("cityscapes", LAYOUT)  # noqa: A001
    splits = {}
    for split in ("train", "val"):
        images, masks = dir / "leftImg8bit" / split, dir / "gtFine" / split
        if images.is_dir() and masks.is_dir():
            splits[split] = _pair(images, masks)
    test = sorted((dir / "leftImg8bit" / "test").glob(f"*/[!.]*{IMAGE}"))
    if not splits and not test:
        raise InputError(f"{dir} does not hold Cityscapes; give --data.dir, which is {LAYOUT}")
    ids = [number for number, _ in CLASSES.values()]
    label_map = LabelMap(
        void=tuple(number for number in range(IDS) if number not in ids),
        numbers=tuple((number, label) for label, number in enumerate(ids)),
    )
    colours = tuple(colour for _, colour in CLASSES.values())
    return Found(tuple(CLASSES), splits, label_map, colours, {"test": test} if test else {})


def _pair(images: Path, masks: Path) -> list[Files]:
    """Pair the images and masks of a split by city and name. A missing partner is reported when it is read."""
    found = {file.relative_to(images).as_posix().removesuffix(IMAGE) for file in images.glob(f"*/[!.]*{IMAGE}")}
    found |= {file.relative_to(masks).as_posix().removesuffix(MASK) for file in masks.glob(f"*/[!.]*{MASK}")}
    return [Files(Path(name).name, images / f"{name}{IMAGE}", masks / f"{name}{MASK}") for name in sorted(found)]


SOURCE = DataSource(
    name="cityscapes",
    size="3,475 images with masks (2,975 train, 500 val); 11 GB",
    licence="its own, for uses that are not commercial; register at www.cityscapes-dataset.com",
    description="Cityscapes, fine annotations, 2048x1024: --data.dir with leftImg8bit and gtFine",
    # 2975 images: 54 epochs. The zoom begins at a third of the size, so that a crop sees enough of a scene.
    defaults=Defaults(crop=320, scale=(0.33, 1.0), steps=20_000, batch_size=8, learning_rate=0.02, eval_every=2_000),
    find=find,
    outline=Outline((len(CLASSES),), ("train", "val"), unlabelled=("test",), max_size=(1024, 2048)),
    # Any name that begins as that of the image, and the numbers of labels.py, not the train ids (cityscapesScripts,
    # evaluation/evalPixelLevelSemanticLabeling.py).
    submission=Submission(endings=(".zip",)),
)
