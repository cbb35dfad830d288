"""The entries of a data set: its examples with the sizes and times of their files, and hashes of the whole list."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcn_jax.data.inputs import COLOUR
from fcn_jax.data.sources.source import Drawn, Files, Found, Listed, Outlined, Slice

FORMAT = 1  # version of the prepared records; with a new number every data set is built anew


class Entry(NamedTuple):
    """An example in its split, with name, size in bytes and time in ns of each of its files that exists."""

    split: str
    example: Listed
    stats: tuple[tuple[str, int, int], ...]

    @property
    def is_complete(self) -> bool:
        """Whether all of its files exist."""
        return len(self.stats) == len(_list_files(self.example))

    @property
    def size(self) -> int:
        """Bytes of its own files, or of its part of a file that has all examples."""
        sizes = [size for _, size, _ in self.stats]
        match self.example:
            case Slice(count=count):
                return sum(sizes) // count
            case Outlined():  # the last file may have the outlines of a whole split
                return sum(sizes[:-1])
            case _:
                return sum(sizes)


def list_entries(found: Found) -> list[Entry]:
    """List all examples, split by split, without reading their files."""
    return [
        Entry(split, example, _list_stats(example)) for split, examples in found.splits.items() for example in examples
    ]


def list_problems(entries: Iterable[Entry], splits: Iterable[str]) -> list[str]:
    """Describe splits without examples, names that occur twice in a split, and files that are not there."""
    by_split: dict[str, list[Entry]] = {split: [] for split in splits}
    for entry in entries:
        by_split[entry.split].append(entry)
    problems = []
    for split, members in by_split.items():
        if not members:
            problems.append(f"{split}: the split has no examples; add some or remove it")
        names = Counter(entry.example.name for entry in members)
        problems += [
            f"{split}: there are {count} examples {name!r}; a name stands for one image and mask, so rename them"
            for name, count in names.items()
            if count > 1
        ]
        lone = [entry.example for entry in members if not entry.is_complete and isinstance(entry.example, Files)]
        problems += [f"{split}: {line}" for line in _describe_lone(lone)]
        outlined = [entry.example for entry in members if isinstance(entry.example, Outlined) and not entry.is_complete]
        problems += [f"{split}: {line}" for example in outlined for line in _describe_missing(example)]
    return problems


def _describe_lone(examples: Sequence[Files]) -> list[str]:
    """Describe examples of which a file is not there, in a line for each. The first has the rule."""
    if not examples:
        return []
    there = os.path.exists  # `Path.exists` raises an error if the name is too long
    images = [example for example in examples if there(example.image) and not there(example.mask)]
    masks = [example for example in examples if there(example.mask) and not there(example.image)]
    neither = [example for example in examples if not there(example.image) and not there(example.mask)]
    parted = [example for example in examples if there(example.image) and there(example.mask)]
    lines = [
        *(f"image {e.image.name} has no mask {e.mask.name} in {e.mask.parent}" for e in images),
        *(f"mask {e.mask.name} has no image {e.image.name} in {e.image.parent}" for e in masks),
        *(f"{e.name} has no image {e.image.name} in {e.image.parent} and no mask {e.mask.name}" for e in neither),
        *(
            f"{e.name} has no {file.name} in {file.parent}"
            for e in parted
            for file in _list_files(e)
            if not there(file)
        ),
    ]
    suffix = _find_suffix({e.name for e in images}, [e.name for e in masks])
    remedy = "add the missing file, or remove its partner"
    if suffix:
        remedy = f"these seem to have {suffix!r} after it, so give --data.label-suffix={suffix}"
    rule = f"a mask has the name of its image, without the extension; {remedy}"
    kinds = {
        "images without mask": images,
        "masks without image": masks,
        "names without both": neither,
        "examples without another input or mask": parted,
    }
    counts = ", ".join(f"{len(lone)} {what}" for what, lone in kinds.items() if lone)
    return [lines[0] + (f" ({counts})" if len(lines) > 1 else "") + f": {rule}", *lines[1:]]


def _describe_missing(example: Outlined) -> list[str]:
    """Describe the image and the mask of an example with outlines, if they are not there."""
    name = example.outlines.name
    files = (
        ("image", f"{name} lists the image", example.image),
        ("mask", f"{name} needs the mask", example.mask),
    )
    return [
        f"{needs} {file.name}, which is not in {file.parent}; add the {kind}, or remove it from that file"
        for kind, needs, file in files
        if file and not os.path.exists(file)  # `Path.exists` raises an error if the name is too long
    ]


def _find_suffix(images: Collection[str], masks: Iterable[str]) -> str | None:
    """Find what the names of most masks have after the name of an image."""
    suffixes = Counter(mask[end:] for mask in masks for end in range(len(mask) - 1, 0, -1) if mask[:end] in images)
    return max(suffixes, key=lambda suffix: (suffixes[suffix], len(suffix))) if suffixes else None


def hash_contents(found: Found, entries: Sequence[Entry]) -> str:
    """Hash classes, names and sizes. A copy in another place has the same hash."""
    return _hash(found, entries, [[size for _, size, _ in entry.stats] for entry in entries])


def hash_source(found: Found, entries: Sequence[Entry]) -> str:
    """Hash classes, names, sizes and times. The hash changes when the size or the time of a file does."""
    return _hash(found, entries, [entry.stats for entry in entries])


def _list_files(example: Listed) -> tuple[Path, ...]:
    match example:
        case Files():
            return example.image, *example.others, example.mask, *example.other_masks
        case Outlined():
            mask = (example.mask,) if example.mask else ()
            return example.image, *mask, example.outlines
        case Slice():
            return (example.file,)
        case Drawn():
            return ()


def _list_stats(example: Listed) -> tuple[tuple[str, int, int], ...]:
    stats = []
    for file in _list_files(example):
        with contextlib.suppress(OSError):  # a missing file is reported when it is read
            stat = file.stat()
            stats.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(stats)


def _hash(found: Found, entries: Sequence[Entry], files: list) -> str:
    labels = found.label_map
    about: list[Any] = [FORMAT, found.class_names, labels.void, tuple(found.splits)]
    if labels.numbers or labels.colours:
        about.append([labels.numbers, labels.colours])
    if found.inputs != (COLOUR,):
        about.append([given.name for given in found.inputs])
    if found.others:
        about.append([found.task, [[other.task, other.class_names, vars(other.label_map)] for other in found.others]])
    firsts = {entry.split: entry.example for entry in reversed(entries)}
    drawings = [_hash_drawing(example) for example in firsts.values()]
    names = [(entry.split, entry.example.name) for entry in entries]
    return hashlib.sha256(json.dumps([about + drawings, names, files]).encode()).hexdigest()[:16]


def _hash_drawing(example: Listed) -> str:
    """Hash the drawn arrays, which change with our code and with NumPy's random numbers."""
    arrays = example.draw() if isinstance(example, Drawn) else ()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
