"""Decodes a split once: a file of raw pixels beside the prepared data, read through a memory map.

In the folder `decoded`, SPLIT.uint8 holds image and label of every example at their own sizes, one after the other;
SPLIT.json says whose they are, how large each is, and their checksums. A reader that wants a part of an image reads
that part alone.
"""

import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import PIL

from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.errors import InputError
from fcn_jax.runtime.files import lock_file
from fcn_jax.runtime.progress import show_progress
from fcn_jax.runtime.threads import map_in_threads

THREADS = os.cpu_count() or 1  # that decode


class Decoded(Sequence[Example]):
    """The examples of a split in the order of the source, as views of the map; several threads may read at once."""

    def __init__(self, pixels: np.memmap, names: list[str], sizes: list[tuple[int, int]]):
        """Takes the map of SPLIT.uint8, and name and (height, width) of each example."""
        self._pixels, self._names, self._sizes = pixels, names, sizes
        self._ends = np.cumsum([4 * height * width for height, width in sizes], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: SupportsIndex) -> Example:
        """Finds an example, negative ones from the end; raises IndexError outside of the split."""
        place = range(len(self))[index]
        height, width = self._sizes[place]
        image, label = np.split(self.bytes(place), [3 * height * width])
        return Example(self._names[place], image.reshape(height, width, 3), label.reshape(height, width))

    def bytes(self, place: int) -> np.ndarray:
        """Image and label of an example as they lie in the file."""
        height, width = self._sizes[place]
        end = int(self._ends[place])
        return self._pixels[end - 4 * height * width : end].view(np.ndarray)


def decoded(dataset: Dataset, split: str) -> Decoded:
    """A split of a data set, decoded; the file is written if it is not there, or not what it should be.

    Opening reads the file once, to make sure of it: a wrong pixel would go unnoticed otherwise. Of several processes
    one writes and the others wait.

    Raises:
        InputError: there is no such split, or the file cannot be written.
    """
    source = dataset.source(split)
    folder = dataset.folder / "decoded"
    about = [dataset.contents, split, len(source), PIL.__version__]  # versions of Pillow may decode JPEGs differently
    if (found := _open(folder / split, about)) is not None:
        return found
    with lock_file(folder / "lock"):
        if (found := _open(folder / split, about)) is not None:
            return found
        try:
            _write(folder / split, about, source)
        except OSError as error:
            raise InputError(
                f"decoded images cannot be written to {folder} ({error}): make room for 4 bytes a pixel, name another "
                "folder with --data.cache, or give --data.decoded never"
            ) from error
    found = _open(folder / split, about)
    if found is None:
        raise InputError(f"{folder / split}.uint8 is not what was just written to it; is the disk sound?")
    return found


def _open(stem: Path, about: list[Any]) -> Decoded | None:
    """What is there, or None if it is not there, belongs to something else, or is damaged."""
    try:
        index = json.loads(stem.with_suffix(".json").read_text())
        if index.pop("index") != _checksum(index) or index["about"] != about:
            return None
        file = stem.with_suffix(".uint8")
        sizes = [(height, width) for height, width in index["sizes"]]
        if file.stat().st_size != sum(4 * height * width for height, width in sizes):
            return None
        found = Decoded(np.memmap(file, np.uint8, "r"), index["names"], sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda place: zlib.crc32(found.bytes(place).data), range(len(found)))
        return found if list(sums) == index["pixels"] else None


def _write(stem: Path, about: list[Any], source: Sequence[Example]) -> None:
    """Decodes everything; nothing has its name before it is whole."""
    names, sizes, sums = [], [], []
    temporary = stem.with_suffix(".uint8.tmp")
    try:
        with temporary.open("wb") as file, show_progress("decoding", len(source), "images") as advance:
            for example in map_in_threads(source.__getitem__, range(len(source)), THREADS):
                names.append(example.name)
                sizes.append(example.label.shape)
                pixels = example.image.tobytes() + example.label.tobytes()
                sums.append(zlib.crc32(pixels))
                file.write(pixels)
                advance(1)
        temporary.replace(stem.with_suffix(".uint8"))
    except OSError:
        temporary.unlink(missing_ok=True)  # the disk is full: not of this
        raise
    index = {"about": about, "names": names, "sizes": sizes, "pixels": sums}
    temporary = stem.with_suffix(".json.tmp")
    temporary.write_text(json.dumps({**index, "index": _checksum(index)}))
    temporary.replace(stem.with_suffix(".json"))


def _checksum(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index).encode())
