"""ADE20K in the version of the scene parsing challenge: 150 classes of objects and stuff (Zhou et al., CVPR 2017)."""

from pathlib import Path

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.listing import list_pictures, pair_files
from fcn_jax.data.sources.source import DataSource, Defaults, Found, Outline, Request, Submission
from fcn_jax.errors import InputError

LAYOUT = (
    "the unpacked folder ADEChallengeData2016 with images/{training,validation}, annotations/{training,validation} and "
    "objectInfo150.txt; get ADEChallengeData2016.zip from sceneparsing.csail.mit.edu"
)
CLASSES = 150
SPLITS = {"train": "training", "val": "validation"}
NAMES = "objectInfo150.txt"


def find(request: Request) -> Found:
    """Find the splits train, val and test, if they exist. Examples are in order of name.

    The split test has images without labels. They are in images/testing (the README named below), or in release_test,
    as their archive unpacks, beside or in ADEChallengeData2016.

    A mask has 0 for what belongs to no class, which is void, and 1 to 150 for the classes 0 to 149, as the challenge
    says (README of github.com/CSAILVision/sceneparsing).

    Raises:
        InputError: no folder is given, or it has none of the splits or no file of class names.
    """
    dir = request.require_dir("ade20k", LAYOUT)  # noqa: A001
    root = next((root for root in (dir / "ADEChallengeData2016", dir) if (root / NAMES).is_file()), None)
    if root is None:
        raise InputError(f"{dir} has no {NAMES}; give --data.dir, which is {LAYOUT}")
    splits = {}
    for split, folder in SPLITS.items():
        images, masks = root / "images" / folder, root / "annotations" / folder
        if images.is_dir() and masks.is_dir():
            splits[split] = pair_files(images, masks)
    places = (root / "images/testing", root / "release_test/testing", root.parent / "release_test/testing")
    test = next((images for place in places if (images := list_pictures(place))), [])
    if not splits and not test:
        raise InputError(f"{root} has no images and annotations; give --data.dir, which is {LAYOUT}")
    numbers = tuple((label + 1, label) for label in range(CLASSES))
    label_map = LabelMap(void=(0,), numbers=numbers)
    return Found(read_names(root / NAMES), splits, label_map, unlabelled={"test": test} if test else {})


def read_names(file: Path) -> tuple[str, ...]:
    """Read the class names of objectInfo150.txt: the first of the names in the last column of each row.

    The file has columns that are separated by tabs, and a head: Idx, Ratio, Train, Val, Name.

    Raises:
        InputError: the file cannot be read as text, or does not have the rows 1 to 150 with names that differ.
    """
    try:
        _, *lines = file.read_text(encoding="utf-8").rstrip().splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); get it anew from ADEChallengeData2016.zip") from error
    rows = [line.split("\t") for line in lines]
    names = tuple(row[-1].split(",")[0].strip() for row in rows)
    in_order = [row[0].strip() for row in rows] == [str(number + 1) for number in range(CLASSES)]
    if not in_order or not all(names) or len(set(names)) != CLASSES:
        raise InputError(
            f"{file} has not the rows 1 to {CLASSES}, each with a name of its own in the last column; get it anew from "
            "ADEChallengeData2016.zip"
        )
    return names


SOURCE = DataSource(
    name="ade20k",
    size="22,210 images (20,210 train, 2,000 val); 0.9 GB",
    licence="for research and teaching that is not commercial; its masks under the BSD licence",
    description="ADE20K, scene parsing: --data.dir ADEChallengeData2016",
    # 20 210 images: 32 epochs. mmsegmentation takes crops of 512 and 80 000 steps of 16, where the memory suffices.
    defaults=Defaults(crop=256, scale=(0.5, 2.0), steps=80_000, batch_size=8, learning_rate=0.02, eval_every=8_000),
    find=find,
    outline=Outline((CLASSES,), ("train", "val"), unlabelled=("test",)),
    submission=Submission(endings=(".zip",)),  # the names of the images, says the README of sceneparsing
)
