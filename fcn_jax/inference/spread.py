"""Choose images from all over a split. Films change slowly, so its first images say little."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def spread_indices(length: int, count: int | None) -> list[int]:
    """Return `count` indices evenly spread over a split of `length` images; None: all of them."""
    return np.unique(np.linspace(0, length - 1, min(count or length, length)).round().astype(int)).tolist()


def choose_evenly(items: Sequence[Item], count: int | None) -> list[Item]:
    """Return `count` items evenly spread over all, such as the examples of a split; None: all of them."""
    return [items[index] for index in spread_indices(len(items), count)]
