"""Choose images from all over a split."""

import numpy as np


def spread_indices(length: int, count: int | None) -> list[int]:
    """Return `count` indices evenly spread over a split of `length` images; None: all of them."""
    return np.unique(np.linspace(0, length - 1, min(count or length, length)).round().astype(int)).tolist()
