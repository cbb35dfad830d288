"""PASCAL VOC 2012 segmentation: 20 classes of objects and the background (Everingham et al., IJCV 2010)."""

import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from fcn_jax.data.sources.archive import Archive, extract_file, fetch, name_folder, unpack
from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.sbd_layout import find_sbd, list_sbd, subtract_sbd
from fcn_jax.data.sources.source import DataSource, Defaults, Files, Found, Outline, Request, Submission
from fcn_jax.data.sources.voc_layout import CLASS_FILES, LISTS, find_listed
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import show_progress

# The address is torchvision's (datasets/voc.py), the checksum that of its prototype/datasets/_builtin/voc.py.
ARCHIVE = Archive(
    "VOCtrainval_11-May-2012.tar",
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    1_999_639_040,
)
LAYOUT = (
    "the folder VOCdevkit or VOC2012 with JPEGImages/*.jpg, SegmentationClass/*.png and "
    f"ImageSets/Segmentation/{{train,val}}.txt, or the official archive {ARCHIVE.file}; the test images are in another "
    "one, VOC2012test.tar, which is unpacked into the same folder or given by itself"
)
OFFICIAL = ("train", "val")
MAX_SIZE = (500, 500)  # height and width
_MASKS, _AUG = "SegmentationClass", "SegmentationClassAug"
CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus",
    "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def find(request: Request) -> Found:
    """Find the official splits train and val, and trainaug, seg11valid and test if their files exist.

    trainaug has 10,582 images: those of VOC's train and of SBD that are not in VOC's val. It is read from trainaug.txt
    and SegmentationClassAug, or made of SBD if that is in the same folder. Then VOC's images have VOC's masks, and the
    others SBD's. seg11valid has the 736 images of VOC 2011's val that are not in SBD's train, on which the FCN papers
    score (the reference's data/pascal/seg11valid.txt). It is read from seg11valid.txt, or made of the lists of VOC 2011
    and SBD in the same folder. Examples are in the order of the lists. A line of a list is a name, or the paths of an
    image and its mask. test has images without labels; it is alone where the files of train and val are missing.

    `request.dir` is VOCdevkit, VOC2012, a folder with VOCdevkit or the archive in it, or the archive. Without it the
    archive is downloaded. An archive is unpacked into the cache.

    Raises:
        InputError: the data set is not there, or cannot be downloaded or unpacked.
    """
    root = _find_root(request.dir, request.cache)
    if own := [name for name in CLASS_FILES if (root / name).is_file()]:
        print(
            f"warning: {root / own[0]} is not used: voc2012 has the classes of PASCAL VOC, aeroplane to tvmonitor; for "
            "classes of your own there is the data set voc",
            file=sys.stderr,
        )
    unlabelled = {}
    if (root / LISTS / "test.txt").is_file():
        unlabelled = {"test": [example.image for example in _list_examples(root, "test", _MASKS)]}
        if not _has_lists(root, OFFICIAL):
            return Found(CLASS_NAMES, {}, unlabelled=unlabelled)
    splits = {split: _list_examples(root, split, _MASKS) for split in OFFICIAL}
    if (root / LISTS / "trainaug.txt").is_file() and (root / _AUG).is_dir():
        splits["trainaug"] = _list_examples(root, "trainaug", _AUG)
    elif request.dir and (sbd := find_sbd(request.dir)):
        official = {example.name for split in splits.values() for example in split}
        more = (example for split in OFFICIAL for example in list_sbd(sbd, split, without=official))
        splits["trainaug"] = [*splits["train"], *more]
    if valid := list_seg11valid(root, request.dir):
        splits["seg11valid"] = valid
    return Found(CLASS_NAMES, splits, unlabelled=unlabelled)


def list_seg11valid(root: Path, dir: Path | None) -> list[Files] | None:  # noqa: A002
    """List the examples of seg11valid, with VOC's masks.

    Args:
        root: the folder VOC2012.
        dir: the folder in which SBD and VOC 2011 are looked for.

    Returns:
        The examples; None if there is neither the list seg11valid.txt nor what it is made of.

    Raises:
        InputError: a list cannot be read.
    """
    if (root / LISTS / "seg11valid.txt").is_file():
        return _list_examples(root, "seg11valid", _MASKS)
    if dir is None or (sbd := find_sbd(dir)) is None or (names := subtract_sbd(dir, sbd)) is None:
        return None
    return [_get_files(root, name, _MASKS) for name in names]


def find_unpacked(dir: Path, splits: Iterable[str] = OFFICIAL) -> Path | None:  # noqa: A002
    """Find the folder VOC2012 with the lists of some splits in a folder, which may be that folder itself.

    Returns:
        The folder; None if there is none.
    """
    places = (dir, dir / "VOC2012", dir / "VOCdevkit" / "VOC2012")
    return next((folder for folder in places if _has_lists(folder, splits)), None)


def _has_lists(root: Path, splits: Iterable[str]) -> bool:
    return all((root / LISTS / f"{split}.txt").is_file() for split in splits)


def _list_examples(root: Path, split: str, masks: str) -> list[Files]:
    """List the examples of a list, whose masks are in the folder `masks` unless its lines say where they are."""
    lines = read_list(root / LISTS / f"{split}.txt")
    return [find_listed(words, root) or _get_files(root, words[0], masks) for words in lines]


def _get_files(root: Path, name: str, masks: str) -> Files:
    return Files(name, root / "JPEGImages" / f"{name}.jpg", root / masks / f"{name}.png")


def _find_root(dir: Path | None, cache: Path) -> Path:  # noqa: A002
    if dir is None:
        folder = name_folder("voc2012", cache)
        if not folder.exists():
            _unpack(fetch(ARCHIVE, cache, LAYOUT), folder)
        return folder / "VOC2012"
    if root := find_unpacked(dir):
        return root
    archive = dir / ARCHIVE.file if dir.is_dir() else dir
    if not archive.is_file():
        if root := find_unpacked(dir, ("test",)):
            return root
        raise InputError(f"{dir} does not hold VOC 2012; give --data.dir, which is {LAYOUT}")
    stat = archive.stat()
    folder = cache / "voc2012" / f"unpacked-{stat.st_size}-{stat.st_mtime_ns}"
    if not folder.exists():
        _unpack(archive, folder)
    return folder / "VOC2012"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the part of the archive that segmentation needs."""

    def extract(part: Path) -> None:
        with tarfile.open(archive, "r:") as tar:  # not compressed, so it cannot fill the disk
            _extract(tar, part, archive.name)

    rule = f"the official archive has {ARCHIVE.size} bytes and the SHA-256 {ARCHIVE.sha256}"
    unpack(str(archive), folder, extract, rule)


def _extract(tar: tarfile.TarFile, part: Path, name: str) -> None:
    """Extract the lists, the masks, and the images that a list names."""
    members = {}
    for member in tar:
        if member.size < 0:  # the next header would be before this one, for ever
            raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
        _, _, path = member.name.rpartition("VOC2012/")
        members[path] = member
    wanted = [path for path in members if path.startswith((f"{LISTS}/", f"{_MASKS}/", f"{_AUG}/"))]
    for split in () if f"{LISTS}/test.txt" in members else OFFICIAL:
        if f"{LISTS}/{split}.txt" not in members:
            raise tarfile.ReadError(f"VOCdevkit/VOC2012/{LISTS}/{split}.txt is missing")

    def extract(path: str) -> None:
        extract_file(tar, members[path].replace(name=f"VOC2012/{path}"), part)

    for path in [p for p in wanted if p.startswith(LISTS) and p.endswith(".txt")]:
        extract(path)
        lines = read_list(part / "VOC2012" / path) if members[path].isfile() else []
        listed = [
            find_listed(words, Path()) or Files(words[0], Path(f"JPEGImages/{words[0]}.jpg"), Path()) for words in lines
        ]
        wanted += [image for example in listed if (image := example.image.as_posix()) in members]
    wanted = list(dict.fromkeys(wanted))
    with show_progress(f"unpacking {name}", len(wanted), "files") as advance:
        for path in wanted:
            extract(path)
            advance(1)


SOURCE = DataSource(
    name="voc2012",
    size="2,913 images with masks; 2.0 GB",
    licence="photographs from flickr, under flickr's terms of use",
    description="PASCAL VOC 2012, host.robots.ox.ac.uk/pascal/VOC/voc2012: --data.dir VOCdevkit or its archive; "
    "downloaded without it; trainaug: add SBD",
    # Light enough for two CPU cores (200 steps in a quarter of an hour) and small GPUs; 45 epochs of trainaug.
    # A crop of 480 pixels is better if the memory suffices, since it holds nearly all of an image (375x500).
    defaults=Defaults(crop=256, scale=(0.5, 2.0), steps=60_000, batch_size=8, learning_rate=0.02, eval_every=4_000),
    find=find,
    outline=Outline((len(CLASS_NAMES),), OFFICIAL, ("trainaug", "seg11valid"), ("test",), MAX_SIZE),
    # The folders of the development kit's VOCinit.m; VOCevalseg.m refuses indices above 20 and other sizes.
    submission=Submission(
        endings=(".tgz", ".tar.gz"),
        folder="results/VOC2012/Segmentation/{competition}_{split}_cls",
        competitions=("comp6", "comp5"),
        has_palette=True,
    ),
)
