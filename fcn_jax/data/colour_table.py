"""Tables of colours, and the labels of a picture's pixels by such a table."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32, UInt8

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

_ROWS = 256  # of a picture, looked up at once: the numbers of colours take many times the picture's memory


def match_colours(
    picture: UInt8[np.ndarray, "height width 3"], labels: Mapping[Colour, int]
) -> tuple[UInt8[np.ndarray, "height width"], Counter[Colour]]:
    """Find the label of each pixel by its colour, and count the pixels of colours that have none.

    Args:
        picture: red, green and blue of each pixel.
        labels: the label of each colour, 0..255; at least one.

    Returns:
        The labels, which are meaningless where the colour has none, and the number of pixels of each such colour.
    """
    table = _encode(np.array(list(labels), np.uint8))
    order = np.argsort(table)
    codes, values = table[order], np.array(list(labels.values()), np.uint8)[order]
    result = np.empty(picture.shape[:2], np.uint8)
    unknown: Counter[int] = Counter()
    for first in range(0, len(picture), _ROWS):
        block = _encode(picture[first : first + _ROWS])
        places = np.searchsorted(codes, block).clip(max=len(codes) - 1)
        result[first : first + _ROWS] = values[places]
        found, counts = np.unique(block[codes[places] != block], return_counts=True)
        unknown.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    return result, Counter({(code >> 16, code >> 8 & 255, code & 255): count for code, count in unknown.items()})


def _encode(colours: UInt8[np.ndarray, "*pixels 3"]) -> Int32[np.ndarray, "*pixels"]:
    """Encode colours as numbers 0xRRGGBB."""
    return (colours.astype(np.int32) << np.array([16, 8, 0], np.int32)).sum(-1, dtype=np.int32)
