"""The files of SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011), and the splits made with its lists.

SBD gives 11,355 images of PASCAL VOC 2011 masks of the same 21 classes, without void borders. Its archive
benchmark.tgz unpacks to benchmark_RELEASE/dataset with img/*.jpg, cls/*.mat (the field Segmentation of the struct
GTcls, as the reference's voc_layers.py reads it), train.txt (8,498 names) and val.txt (2,857 names).
"""

from collections.abc import Collection
from pathlib import Path

from fcn_jax.data.sources.listing import read_list
from fcn_jax.data.sources.source import Files

LAYOUT = (
    "the folder benchmark_RELEASE of SBD's archive benchmark.tgz, unpacked, or its dataset/ with img/*.jpg, cls/*.mat "
    "and {train,val}.txt"
)
_VARIABLE = "GTcls.Segmentation"
_LISTS_2011 = "VOC2011/ImageSets/Segmentation"
_UNPACKED_2011 = "TrainVal/VOCdevkit"  # what the archive of VOC 2011 unpacks to


def find_sbd(dir: Path) -> Path | None:  # noqa: A002
    """Find SBD's folder `dataset` in a folder, which may be that folder itself; None if there is none."""
    for folder in (dir, dir / "dataset", dir / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir() and (folder / "train.txt").is_file() and (folder / "val.txt").is_file():
            return folder
    return None


def list_sbd(sbd: Path, split: str, without: Collection[str] = ()) -> list[Files]:
    """List the examples of SBD's split, in the order of its list.

    Args:
        sbd: SBD's folder `dataset`.
        split: train or val.
        without: names to leave out.

    Raises:
        InputError: the list cannot be read.
    """
    names = [words[0] for words in read_list(sbd / f"{split}.txt")]
    return [
        Files(name, sbd / "img" / f"{name}.jpg", sbd / "cls" / f"{name}.mat", _VARIABLE)
        for name in names
        if name not in without
    ]


def subtract_sbd(dir: Path, sbd: Path) -> list[str] | None:  # noqa: A002
    """List the names of VOC 2011's val that are not in SBD's train: 736 names, on which the FCN papers score.

    Args:
        dir: a folder that may hold VOC2011, VOCdevkit/VOC2011 or TrainVal/VOCdevkit/VOC2011.
        sbd: SBD's folder `dataset`.

    Returns:
        The names in the order of VOC's list; None if there is no such list.

    Raises:
        InputError: a list cannot be read.
    """
    for folder in (dir, dir / "VOCdevkit", dir / _UNPACKED_2011):
        if (file := folder / _LISTS_2011 / "val.txt").is_file():
            trained = {words[0] for words in read_list(sbd / "train.txt")}
            return [words[0] for words in read_list(file) if words[0] not in trained]
    return None
