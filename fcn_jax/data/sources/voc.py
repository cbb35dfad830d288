"""PASCAL VOC 2012 segmentation: 20 classes of objects and the background (Everingham et al., IJCV 2010)."""

import shutil
import tarfile
import uuid
from pathlib import Path

from fcn_jax.data.builder import SegmentationBuilder
from fcn_jax.data.entries import Files
from fcn_jax.errors import InputError
from fcn_jax.runtime.download import download, locked, progress

ARCHIVE = "VOCtrainval_11-May-2012.tar"
URL = f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{ARCHIVE}"
SIZE = 1_999_639_040
SHA256 = "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
LAYOUT = (
    "the folder VOCdevkit or VOC2012 with JPEGImages/*.jpg, SegmentationClass/*.png and "
    f"ImageSets/Segmentation/{{train,val}}.txt, or the official archive {ARCHIVE}"
)
_LISTS, _MASKS, _AUG = "ImageSets/Segmentation", "SegmentationClass", "SegmentationClassAug"


class Voc2012(SegmentationBuilder):
    """The official splits train and val, and those whose lists and masks are there.

    trainaug has the masks of SBD; seg11valid the 736 images of VOC 2011's val that are not in SBD's train, on which the
    FCN papers score (the reference's data/pascal/seg11valid.txt).
    """

    name = "voc2012"
    class_names = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus",
        "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
        "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip

    def __init__(self, dir: Path | None, cache: Path):  # noqa: A002
        """Finds the data, unpacking or fetching the archive into the cache where it must.

        Args:
            dir: VOCdevkit, VOC2012, a folder with VOCdevkit or the archive in it, or the archive;
                None fetches the archive.
            cache: the folder of everything prepared.

        Raises:
            InputError: if it is not there, or cannot be unpacked or fetched.
        """
        self._root = _find(dir, cache)
        augmented = (self._root / _LISTS / "trainaug.txt").is_file() and (self._root / _AUG).is_dir()
        scored = (self._root / _LISTS / "seg11valid.txt").is_file()
        self.splits = ("train", "val", *["trainaug"] * augmented, *["seg11valid"] * scored)
        super().__init__(cache)

    def examples(self, split: str) -> list[Files]:
        """The examples in the order of the official list."""
        masks = self._root / (_AUG if split == "trainaug" else _MASKS)
        names = _names(self._root / _LISTS / f"{split}.txt")
        return [Files(n, self._root / "JPEGImages" / f"{n}.jpg", masks / f"{n}.png") for n in names]


def _names(file: Path) -> list[str]:
    """The images of a list: the first word of each line."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}): it holds the name of an image a line, get it anew"
        ) from error
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _find(dir: Path | None, cache: Path) -> Path:  # noqa: A002
    if dir is None:
        folder = cache / "voc2012" / "official"
        if not folder.exists():
            _unpack(_fetch(cache), folder)
        return folder / "VOC2012"
    for folder in (dir, dir / "VOC2012", dir / "VOCdevkit" / "VOC2012"):
        if all((folder / _LISTS / f"{split}.txt").is_file() for split in ("train", "val")):
            return folder
    archive = dir / ARCHIVE if dir.is_dir() else dir
    if not archive.is_file():
        raise InputError(f"{dir} does not hold VOC 2012: --data.dir names {LAYOUT}")
    stat = archive.stat()
    folder = cache / "voc2012" / f"unpacked-{stat.st_size}-{stat.st_mtime_ns}"
    if not folder.exists():
        _unpack(archive, folder)
    return folder / "VOC2012"


def _fetch(cache: Path) -> Path:
    try:
        return download(URL, cache / "downloads" / ARCHIVE, SHA256, SIZE)
    except InputError as error:
        raise InputError(f"{error}\nIf you have it already, name it with --data.dir: {LAYOUT}") from error


def _unpack(archive: Path, folder: Path) -> None:
    """Takes what segmentation needs out of the archive; the folder gets its name when all is there."""
    with locked(folder.with_name(folder.name + ".lock")) as alone:
        if folder.exists():
            return
        if alone:
            for leftover in folder.parent.glob(f"{folder.name}.*.part"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with tarfile.open(archive) as tar:
                _extract(tar, part, archive.name)
            part.rename(folder)
        except InputError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        except (tarfile.TarError, OSError, EOFError) as error:
            shutil.rmtree(part, ignore_errors=True)
            reason = str(error).partition("\n")[0].rstrip(":")
            if not folder.exists():  # else, where there are no locks, another process was faster
                raise InputError(
                    f"{archive} cannot be unpacked into {folder} ({reason}): it is no archive, is cut short, or there "
                    f"is no room; the official one has {SIZE} bytes and the SHA-256 {SHA256}"
                ) from error


def _extract(tar: tarfile.TarFile, part: Path, name: str) -> None:
    members = {}
    for member in tar.getmembers():
        _, _, path = member.name.rpartition("VOC2012/")
        members[path] = member
    wanted = [path for path in members if path.startswith((f"{_LISTS}/", f"{_MASKS}/", f"{_AUG}/"))]
    for split in ("train", "val"):
        if f"{_LISTS}/{split}.txt" not in members:
            raise tarfile.ReadError(f"VOCdevkit/VOC2012/{_LISTS}/{split}.txt is not in it")

    def extract(path: str) -> None:
        tar.extract(members[path].replace(name=f"VOC2012/{path}"), part, filter="data")

    for path in [p for p in wanted if p.startswith(_LISTS) and p.endswith(".txt")]:
        extract(path)
        names = _names(part / "VOC2012" / path) if members[path].isfile() else []
        wanted += [image for n in names if (image := f"JPEGImages/{n}.jpg") in members]
    wanted = list(dict.fromkeys(wanted))
    with progress(f"unpacking {name}", len(wanted), "files") as advance:
        for path in wanted:
            extract(path)
            advance(1)
