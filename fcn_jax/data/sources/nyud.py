"""NYUDv2: indoor scenes with depth, 640x480, in 40 classes (Silberman et al., ECCV 2012; Gupta et al., CVPR 2013).

It is read in two layouts: the reference's (data/nyud of its repository) with a file for each image, and the official
one. There nyu_depth_v2_labeled.mat, of version 7.3, has images (uint8, in HDF5 [1449, 3, 640, 480]), depths (float32,
metres, without holes, and rawDepths, with holes, [1449, 640, 480]) and labels (uint16, [1449, 640, 480]) of 894
classes; classMapping40.mat has the class of each, 1 to 40, in mapClass; and splits.mat has trainNdxs (795) and testNdxs
(654), from 1.

Depth is in millimetres: the reference's files have 16 bits, and its mean log depth, 7.844, is that of 2.55 m. HHA is
horizontal disparity, height above the ground and the angle to gravity (Gupta et al., ECCV 2014).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcn_jax.data.inputs import COLOUR, Input
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.mat5 import read_array
from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Outline, Request, Slice
from fcn_jax.errors import InputError

ALL, SPLITS, MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
LAYOUT = (
    "the folder of the reference's nyud.tar.gz, with data/images/img_*.png, segmentation/img_*.mat and "
    f"test.txt and trainval.txt, or train.txt and val.txt, which are in data/nyud of the reference's repository; or a "
    f"folder with the official {ALL}, {SPLITS} and {MAPPING}"
)
CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
_FIRST = 5001  # the name of the first image in the reference's lists
_FOLDERS = {"colour": "images", "depth": "depth", "hha": "hha"}  # of the reference's layout, in data

# The means are those of the reference's nyud_layers.py. HHA gets the deviation of colour, because its range is the
# same. The deviation of log depth is that of an even spread from 1 to 6 m.
DEPTH = Input("depth", 1, "uint16", (7.844,), (0.5,), log=True)
HHA = Input("hha", 3, "uint8", (132.431, 94.076, 118.477), COLOUR.std)


def take_colour(array: np.ndarray) -> np.ndarray:
    """Return the colours of an example; raise ValueError if they are none."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"the image is {array.dtype} {list(array.shape)}, not uint8 [height, width, 3]")
    return array


def convert_to_millimetres(metres: np.ndarray) -> np.ndarray:
    """Convert depths in metres to whole millimetres, uint16 [height, width, 1]; raise ValueError if they are none."""
    most = np.iinfo(np.uint16).max
    if metres.ndim != 2 or metres.dtype.kind != "f" or not ((metres >= 0) & (metres <= most / 1000)).all():
        raise ValueError(f"the depths are {metres.dtype} {list(metres.shape)}, not metres from 0 to {most / 1000}")
    return (metres.astype(np.float64) * 1000).round().astype(np.uint16)[..., None]


def make_hha(metres: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Make HHA of depths in metres; where `raw`, what the sensor has measured, is 0, they are filled in."""
    from fcn_jax.data.hha import NYUD_CAMERA, encode_hha  # imports SciPy, which only the reading of examples needs

    return encode_hha(metres, NYUD_CAMERA, raw > 0)


# The variables of the official file that each input is made of, and how.
_ARRAYS = {
    "colour": (("images",), take_colour),
    "depth": (("depths",), convert_to_millimetres),
    "hha": (("depths", "rawDepths"), make_hha),
}


def find(request: Request) -> Found:
    """Find the splits trainval (795 images), on which the reference trains, and test (654), on which it scores.

    The reference's lists also give train (381) and val (414), the two parts of trainval. Its networks read
    trainval.txt, which its repository does not have. An image has the same name in both layouts: 5001 is the first one.
    Void is 0, the label of unlabelled pixels.

    Raises:
        InputError: no folder is given, it has neither layout, or a list cannot be read.
    """
    dir = request.require_dir("nyud", LAYOUT)  # noqa: A001
    if (dir / "segmentation").is_dir():
        classes = tuple((label + 1, label) for label in range(len(CLASS_NAMES)))
        return Found(CLASS_NAMES, _list_files(dir, request.inputs), LabelMap(void=(0,), numbers=classes))
    if missing := [name for name in (ALL, SPLITS, MAPPING) if not (dir / name).is_file()]:
        raise InputError(f"{dir} does not hold NYUDv2 ({missing[0]} is missing); give --data.dir, which is {LAYOUT}")
    classes = tuple((number, label - 1) for number, label in enumerate(_read_numbers(dir / MAPPING, "mapClass", 40), 1))
    return Found(CLASS_NAMES, _list_slices(dir, request.inputs), LabelMap(void=(0,), numbers=classes))


def _list_files(dir: Path, inputs: Sequence[str]) -> dict[str, list[Files]]:  # noqa: A002
    def list_example(name: str) -> Files:
        first, *others = (dir / f"data/{_FOLDERS[given]}/img_{name}.png" for given in inputs)
        return Files(name, first, dir / f"segmentation/img_{name}.mat", "segmentation", tuple(others))

    found = [split for split in ("train", "val", "test", "trainval") if (dir / f"{split}.txt").is_file()]
    splits = {split: [list_example(name) for name, *_ in read_list(dir / f"{split}.txt")] for split in found}
    if "train" in splits and "val" in splits:
        splits["trainval"] = [*splits["train"], *splits["val"]]
    if "trainval" not in splits and "test" not in splits:
        raise InputError(f"{dir} has no lists of the images of NYUDv2; give --data.dir, which is {LAYOUT}")
    return splits


def _list_slices(dir: Path, inputs: Sequence[str]) -> dict[str, list[Slice]]:  # noqa: A002
    arrays = tuple(_ARRAYS[given] for given in inputs)
    places = {
        split: _read_numbers(dir / SPLITS, variable, 1 << 16)
        for split, variable in (("trainval", "trainNdxs"), ("test", "testNdxs"))
    }
    count = sum(map(len, places.values()))
    return {
        split: [Slice(str(place - 1 + _FIRST), dir / ALL, place - 1, "labels", count, arrays) for place in numbers]
        for split, numbers in places.items()
    }


def _read_numbers(file: Path, variable: str, most: int) -> list[int]:
    """Read a list of whole numbers from 1 to `most`.

    Raises:
        InputError: the file cannot be read, or has others.
    """
    array = read_array(file, variable, str(file)).ravel()
    if not array.size or not np.isin(array, np.arange(1, most + 1)).all():
        raise InputError(
            f"variable {variable} of {file} is not a list of whole numbers from 1 to {most}; get the file anew"
        )
    return array.astype(int).tolist()


SOURCE = DataSource(
    name="nyud",
    size="1,449 images of 640x480; 2.8 GB",
    licence="its authors state none",
    description="NYUDv2, inputs colour, depth and hha: --data.dir with the unpacked nyud.tar.gz of the reference, or "
    "with the official .mat files",
    # 100,000 images, as in the reference's nyud-fcn32s-color/solve.py (50 times 2,000 steps of one image): 126 epochs
    # of trainval. Crop, zoom and rate are those of VOC, whose images have about two thirds of the pixels.
    defaults=Defaults(crop=256, scale=(0.5, 2.0), steps=12_500, batch_size=8, learning_rate=0.02, eval_every=1_250),
    find=find,
    outline=Outline((len(CLASS_NAMES),), ("trainval", "test"), ("train", "val"), max_size=(480, 640)),
    inputs=(COLOUR, DEPTH, HHA),
)
