"""What a data set is listed as before it is read: two files an example, or a way to draw it."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Files(NamedTuple):
    """An example that is two files."""

    name: str
    image: Path
    mask: Path


class Drawn(NamedTuple):
    """An example that is made when asked for: `draw()` gives uint8 image [h, w, 3] and label [h, w]."""

    name: str
    draw: Callable[[], tuple[np.ndarray, np.ndarray]]


class Entry(NamedTuple):
    """An example in its split, with name, bytes and time of each of its files that is there."""

    split: str
    example: Files | Drawn
    stats: tuple[tuple[str, int, int], ...]


def look(split: str, example: Files | Drawn) -> Entry:
    """Looks at the files without reading them; what is missing is told when it is read."""
    stats = []
    for file in (example.image, example.mask) if isinstance(example, Files) else ():
        with contextlib.suppress(OSError):
            stat = file.stat()
            stats.append((file.name, stat.st_size, stat.st_mtime_ns))
    return Entry(split, example, tuple(stats))


def drawing(example: Files | Drawn) -> str:
    """Tells one way of drawing from another, be it by our code or by NumPy's random numbers."""
    arrays = example.draw() if isinstance(example, Drawn) else ()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def list_problems(entries: Iterable[Entry], splits: Sequence[str]) -> list[str]:
    """Splits without examples, and names that occur twice in a split."""
    names = Counter((entry.split, entry.example.name) for entry in entries)
    filled = {split for split, _ in names}
    return [
        *(f"{split}: the split has no examples; add some or remove it" for split in splits if split not in filled),
        *(
            f"{split}: there are {count} examples {name!r}; a name stands for one image and mask, so rename them"
            for (split, name), count in names.items()
            if count > 1
        ),
    ]
