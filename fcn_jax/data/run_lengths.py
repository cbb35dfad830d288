"""Masks as run lengths, in the two forms that COCO has (`common/maskApi.c` of github.com/cocodataset/cocoapi).

The pixels are counted column by column, each from the top: first those outside of the mask, then those inside, and so
on by turns. The compressed form is a text of these counts. From the fourth count on it has the difference to the count
two before. A number has its lowest five bits in the first character and the next higher ones in the next characters. Of
the six bits of a character, which is the number plus 48, the highest one says whether a further character follows. In
the last character the next highest bit is the sign.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from fcn_jax.errors import InputError

_CHARACTERS = 13  # of one number at most: 65 bits


def decode_run_lengths(counts: Sequence[Any] | str, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Return the mask of counts, or of their compressed form.

    Raises:
        InputError: they are not the counts of a mask of this size. The text is a part of a sentence.
    """
    numbers = _parse(counts) if isinstance(counts, str) else counts
    total = height * width
    if not all(type(number) is int and 0 <= number <= total for number in numbers) or sum(numbers) != total:
        raise InputError(f"run lengths that are not the counts of {width}x{height} pixels")
    values = np.arange(len(numbers)) % 2 == 1
    return np.repeat(values, numbers).reshape(width, height).T


def _parse(text: str) -> list[int]:
    numbers: list[int] = []
    number = place = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or place == _CHARACTERS:
            raise InputError(f"compressed run lengths with {character!r}, which has no meaning there")
        number |= (bits & 31) << 5 * place
        place += 1
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << 5 * place
        numbers.append(number + (numbers[-2] if len(numbers) > 2 else 0))
        number = place = 0
    if place:
        raise InputError("compressed run lengths that end within a number")
    return numbers
