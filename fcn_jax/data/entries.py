"""The entries of a data set: its examples with the sizes and times of their files, and hashes of the whole list."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fcn_jax.data.sources.source import Drawn, Files, Found

FORMAT = 1  # version of the prepared records; with a new number every data set is built anew


class Entry(NamedTuple):
    """An example in its split, with name, size in bytes and time in ns of each of its files that exists."""

    split: str
    example: Files | Drawn
    stats: tuple[tuple[str, int, int], ...]


def list_entries(found: Found) -> list[Entry]:
    """List all examples, split by split, without reading their files."""
    return [
        Entry(split, example, _list_stats(example)) for split, examples in found.splits.items() for example in examples
    ]


def list_problems(entries: Iterable[Entry], splits: Iterable[str]) -> list[str]:
    """Describe splits without examples, and names that occur twice in a split."""
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


def hash_contents(found: Found, entries: Sequence[Entry]) -> str:
    """Hash classes, names and sizes. A copy in another place has the same hash."""
    return _hash(found, entries, [[size for _, size, _ in entry.stats] for entry in entries])


def hash_source(found: Found, entries: Sequence[Entry]) -> str:
    """Hash classes, names, sizes and times. The hash changes as soon as a file does."""
    return _hash(found, entries, [entry.stats for entry in entries])


def _list_stats(example: Files | Drawn) -> tuple[tuple[str, int, int], ...]:
    stats = []
    for file in (example.image, example.mask) if isinstance(example, Files) else ():
        with contextlib.suppress(OSError):  # a missing file is reported when it is read
            stat = file.stat()
            stats.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(stats)


def _hash(found: Found, entries: Sequence[Entry], files: list) -> str:
    about = [FORMAT, found.class_names, found.void, tuple(found.splits)]
    firsts = {entry.split: entry.example for entry in reversed(entries)}
    drawings = [_hash_drawing(example) for example in firsts.values()]
    names = [(entry.split, entry.example.name) for entry in entries]
    return hashlib.sha256(json.dumps([about + drawings, names, files]).encode()).hexdigest()[:16]


def _hash_drawing(example: Files | Drawn) -> str:
    """Hash the drawn arrays, which change with our code and with NumPy's random numbers."""
    arrays = example.draw() if isinstance(example, Drawn) else ()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
