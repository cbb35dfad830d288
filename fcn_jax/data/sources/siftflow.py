"""SIFT Flow: outdoor scenes, 256x256, with 33 semantic and 3 geometric classes (Tighe & Lazebnik, ECCV 2010).

They are two tasks, which `siftflow` has together, as the FCN paper trains them, and two more data sets have alone.
"""

from functools import partial
from pathlib import Path

from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Labels, Outline, Request
from fcn_jax.errors import InputError

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
LAYOUT = (
    f"the folder SiftFlowDataset with Images, SemanticLabels and GeoLabels, each with {SCENES}/, and TestSet1.txt or "
    "the reference's trainval.txt and test.txt"
)
SEMANTIC = (
    "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door",
    "fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea",
    "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window",
)  # fmt: skip
GEOMETRIC = ("sky", "horizontal", "vertical")
# The folder of the masks of each task, and its classes.
TASKS = {"semantic": ("SemanticLabels", SEMANTIC), "geometric": ("GeoLabels", GEOMETRIC)}
WITHOUT_MASK = ("highway_bost181", "street_urb506")  # says the reference's data/sift-flow/classes.txt


def find(tasks: tuple[str, ...], request: Request) -> Found:
    """Find the splits train, and val, which is the test set of 200 images on which the papers score.

    Labels are those of the reference's siftflow_layers.py: 1 is the first class; 0 and -1 are void.

    Args:
        tasks: the tasks, of `TASKS`.
        request: the user's flags.

    Raises:
        InputError: no folder is given, it does not have this layout, or a list cannot be read.
    """
    dir = request.require_dir("siftflow", LAYOUT)  # noqa: A001
    folders = [TASKS[task][0] for task in tasks]
    roots = (dir, dir / "SiftFlowDataset")
    root = next((root for root in roots if all((root / folder / SCENES).is_dir() for folder in folders)), None)
    lists = None if root is None else _list_names(root)
    if root is None or lists is None:
        raise InputError(f"{dir} does not hold SIFT Flow; give --data.dir, which is {LAYOUT}")

    def list_files(name: str) -> Files:
        mask, *others = (root / folder / SCENES / f"{name}.mat" for folder in folders)
        return Files(name, root / "Images" / SCENES / f"{name}.jpg", mask, "S", other_masks=tuple(others))

    splits = {split: list(map(list_files, names)) for split, names in lists.items()}
    first, *others = (Labels(task, names, _map_labels(names)) for task in tasks for _, names in [TASKS[task]])
    return Found(first.class_names, splits, first.label_map, task=first.task if others else "", others=tuple(others))


def _map_labels(class_names: tuple[str, ...]) -> LabelMap:
    # 65535 is what -1 is read as (fcn_jax.data.mat_files). A number above the classes is an error.
    return LabelMap(void=(0, 65535), numbers=tuple((label + 1, label) for label in range(len(class_names))))


def _list_names(root: Path) -> dict[str, list[str]] | None:
    """List the names of both splits, by the reference's lists or by the data set's own list of test images."""
    if (root / "trainval.txt").is_file() and (root / "test.txt").is_file():
        return {"train": _read_names(root / "trainval.txt"), "val": _read_names(root / "test.txt")}
    if not (root / "TestSet1.txt").is_file():
        return None
    tested = _read_names(root / "TestSet1.txt")
    left_out = {*tested, *WITHOUT_MASK}
    others = sorted({file.stem for file in (root / "Images" / SCENES).glob("[!.]*.jpg")} - left_out)
    return {"train": others, "val": [name for name in tested if name not in WITHOUT_MASK]}


def _read_names(file: Path) -> list[str]:
    """Read a list of names, or of paths, which may be those of Windows."""
    return [words[0].replace("\\", "/").rpartition("/")[2].removesuffix(".jpg") for words in read_list(file)]


# 100,000 images, as in the reference's siftflow-fcn32s/solve.py (50 times 2,000 steps of one image): 40 epochs. A crop
# has the size of an image. Zoom and rate are those of VOC.
_DEFAULTS = Defaults(crop=256, scale=(0.5, 2.0), steps=12_500, batch_size=8, learning_rate=0.02, eval_every=1_250)


def _describe(name: str, num_classes: tuple[int, ...], what: str, *tasks: str) -> DataSource:
    return DataSource(
        name=name,
        size="2,686 images of 256x256 with masks (2,486 train, 200 val)",
        licence="its authors state none",
        description=f"SIFT Flow, 256x256, {what}: --data.dir SiftFlowDataset",
        defaults=_DEFAULTS,
        find=partial(find, tasks),
        outline=Outline(num_classes, ("train", "val"), max_size=(256, 256)),
    )


_BOTH = (len(SEMANTIC), len(GEOMETRIC))
SOURCE = _describe("siftflow", _BOTH, "semantic and geometric classes, two tasks", "semantic", "geometric")
SEMANTIC_SOURCE = _describe("siftflow-semantic", _BOTH[:1], "semantic classes", "semantic")
GEOMETRIC_SOURCE = _describe("siftflow-geometric", _BOTH[1:], "sky, horizontal and vertical", "geometric")
