"""Images of one split, or of two, that are the same or look alike."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from fcn_jax.data.survey.duplicates import NEAR, count_bits, group_alike, group_equal
from fcn_jax.data.survey.measure import Measured


class Pair(NamedTuple):
    """An image, one that is the same or looks alike, and the number of bits in which their difference hashes differ."""

    image: Measured
    other: Measured
    bits: int


class Repeats(NamedTuple):
    """Repeated images of two splits, or within one.

    Attributes:
        kind: "equal" for images with the same pixels, "alike" for different ones that look alike.
        split: the split of the first image of each pair.
        other: the split of the second one; the same if they are repeated within a split.
        pairs: each image of `split` that has a partner in `other`, with the nearest one.
        spoils_scores: whether `other` is there to train on and `split` to score on.
    """

    kind: Literal["equal", "alike"]
    split: str
    other: str
    pairs: Sequence[Pair]
    spoils_scores: bool


def find_repeats(splits: Mapping[str, Sequence[Measured]], train_split: str) -> list[Repeats]:
    """Find the images that occur more than once.

    Args:
        splits: the images of each split.
        train_split: the split to train on. Those whose names begin with "train" count as such, too.

    Returns:
        What was found, "equal" before "alike". Two splits are compared in one direction: the one to score on with the
        one to train on, otherwise the first one with the second.
    """
    images = [image for members in splits.values() for image in members]
    to_train_on = {split for split in splits if split == train_split or split.startswith("train")}
    hashes = np.array([image.appearance for image in images], np.uint64).reshape(-1, 2)
    kinds: list[tuple[Literal["equal", "alike"], list[list[int]]]] = [
        ("equal", group_equal([image.image for image in images])),
        ("alike", group_alike(hashes)),
    ]
    found = []
    for kind, groups in kinds:
        by_splits: dict[tuple[str, str], list[Pair]] = {}
        for one, other in _list_comparisons(list(splits), to_train_on):
            by_splits[one, other] = []
        for group in groups:
            members = [images[place] for place in group]
            for one, other in by_splits:
                by_splits[one, other] += _pair(members, one, other, alike=kind == "alike")
        found += [
            Repeats(kind, one, other, pairs, one not in to_train_on and other in to_train_on)
            for (one, other), pairs in by_splits.items()
            if pairs
        ]
    return found


def _list_comparisons(splits: Sequence[str], to_train_on: set[str]) -> Iterator[tuple[str, str]]:
    for one, other in combinations(splits, 2):
        yield (other, one) if one in to_train_on and other not in to_train_on else (one, other)
    for split in splits:
        yield split, split


def _pair(members: Sequence[Measured], one: str, other: str, alike: bool) -> Iterator[Pair]:
    """Pair the members of a group in one split with the nearest in the other; within a split with an earlier one."""
    candidates = [image for image in members if image.split == other]
    if not candidates:
        return
    hashes = np.array([image.appearance for image in candidates], np.uint64)
    pixels = {image.image: number for number, image in enumerate(members)}
    numbers = np.array([pixels[candidate.image] for candidate in candidates])
    for place, image in enumerate(image for image in members if image.split == one):
        end = place if one == other else len(candidates)
        bits = count_bits(hashes[:end], np.array(image.appearance, np.uint64))
        if alike:
            bits = np.where(numbers[:end] == pixels[image.image], NEAR + 1, bits)
        if bits.size and bits.min() <= NEAR:
            nearest = int(bits.argmin())
            yield Pair(image, candidates[nearest], int(bits[nearest]))
