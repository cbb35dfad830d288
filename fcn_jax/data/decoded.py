"""Decode a split once into a file of raw pixels beside the prepared data, and read it through a memory map.

In the folder `decoded`, SPLIT.uint8 holds the image and the label of every example at their own sizes, one after the
other. SPLIT.json holds names, sizes, checksums, and the identity of the data set. A reader that needs a part of an
image reads only that part from the disk.
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

from fcn_jax.config import InputConfig
from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.data.tasks import add_axis
from fcn_jax.errors import InputError
from fcn_jax.runtime.files import lock_file, replace_atomically
from fcn_jax.runtime.progress import show_progress
from fcn_jax.runtime.threads import map_in_threads

THREADS = os.cpu_count() or 1  # number of threads that decode


class Decoded(Sequence[Example]):
    """The examples of a split in the order of the source, as views of the file; several threads may read at once."""

    def __init__(
        self, pixels: np.memmap, names: list[str], sizes: list[tuple[int, int]], given: InputConfig, tasks: int
    ):
        """Take the memory map of SPLIT.uint8, name and (height, width) of each example, input and number of tasks."""
        self._pixels, self._names, self._sizes, self._input, self._tasks = pixels, names, sizes, given, tasks
        self._ends = np.cumsum([_count_bytes(size, given, tasks) for size in sizes], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: SupportsIndex) -> Example:
        """Return an example; a negative index counts from the end.

        Raises:
            IndexError: the index is outside the split.
        """
        place = range(len(self))[index]
        height, width = self._sizes[place]
        image, label = np.split(self.view_bytes(place), [-height * width * self._tasks])
        image = image.view(self._input.dtype).reshape(height, width, self._input.num_channels)
        return Example(self._names[place], image, label.reshape(height, width, *add_axis(self._tasks)))

    def view_bytes(self, place: int) -> np.ndarray:
        """Return the bytes of an example in the file: its image, then its label."""
        end = int(self._ends[place])
        return self._pixels[end - _count_bytes(self._sizes[place], self._input, self._tasks) : end].view(np.ndarray)


def open_decoded(dataset: Dataset, split: str) -> Decoded:
    """Open the decoded file of a split, and write it before if it is missing, damaged or of other data.

    Opening reads the whole file once to compare its checksums, because a wrong pixel would go unnoticed. Of several
    processes one writes, and the others wait.

    Raises:
        InputError: there is no such split, or the file cannot be written, or differs from what was written.
    """
    source = dataset.source(split)
    folder = dataset.folder / "decoded"
    about = [dataset.contents, split, len(source), PIL.__version__]  # Pillow: its versions may decode JPEGs differently
    stem, given, tasks = folder / split, dataset.input, len(dataset.tasks)
    if (found := _open(stem, about, given, tasks)) is not None:
        return found
    with lock_file(folder / "lock"):
        if (found := _open(stem, about, given, tasks)) is not None:
            return found
        try:
            _write(folder / split, about, source)
        except OSError as error:
            if (found := _open(stem, about, given, tasks)) is not None:  # without file locks by another process
                return found
            raise InputError(
                f"decoded images cannot be written to {folder} ({error}); make room for "
                f"{given.bytes_per_pixel + tasks} bytes per pixel, or give another --data.cache, or --data.decoded "
                "never"
            ) from error
    found = _open(stem, about, given, tasks)
    if found is None:
        raise InputError(f"{folder / split}.uint8 differs from what was just written to it; check the disk")
    return found


def _count_bytes(size: tuple[int, int], given: InputConfig, tasks: int) -> int:
    """Count the bytes of an image of (height, width) and its label."""
    return size[0] * size[1] * (given.bytes_per_pixel + tasks)


def _open(stem: Path, about: list[Any], given: InputConfig, tasks: int) -> Decoded | None:
    """Return the decoded examples, or None if their file is missing, damaged or of other data."""
    try:
        index = json.loads(stem.with_suffix(".json").read_text())
        if index.pop("index") != _compute_checksum(index) or index["about"] != about:
            return None
        file = stem.with_suffix(".uint8")
        sizes = [(height, width) for height, width in index["sizes"]]
        if file.stat().st_size != sum(_count_bytes(size, given, tasks) for size in sizes):
            return None
        found = Decoded(np.memmap(file, np.uint8, "r"), index["names"], sizes, given, tasks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda place: zlib.crc32(found.view_bytes(place).data), range(len(found)))
        return found if list(sums) == index["pixels"] else None


def _write(stem: Path, about: list[Any], source: Sequence[Example]) -> None:
    """Decode a split into SPLIT.uint8, then write SPLIT.json.

    Neither file is synchronised with the disk. Checksums reveal a file that a crash of the machine has damaged.
    """
    names, sizes, sums = [], [], []
    with (
        replace_atomically(stem.with_suffix(".uint8"), sync=False) as temporary,
        temporary.open("wb") as file,
        show_progress("decoding", len(source), "images") as advance,
    ):
        for example in map_in_threads(source.__getitem__, range(len(source)), THREADS):
            names.append(example.name)
            sizes.append(example.label.shape[:2])
            pixels = example.image.tobytes() + example.label.tobytes()
            sums.append(zlib.crc32(pixels))
            file.write(pixels)
            advance(1)
    index = {"about": about, "names": names, "sizes": sizes, "pixels": sums}
    with replace_atomically(stem.with_suffix(".json"), sync=False) as temporary:
        temporary.write_text(json.dumps({**index, "index": _compute_checksum(index)}))


def _compute_checksum(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index).encode())
