"""Values of label images, and the colours of classes."""

import numpy as np
from jaxtyping import UInt8

IGNORE = 255
"""Label of pixels without a class (VOC's "void"). They are neither trained on nor scored."""


def palette(num_classes: int) -> UInt8[np.ndarray, "num_classes 3"]:
    """Compute the colour map of PASCAL VOC. The colour of a class does not depend on the number of classes.

    Bit k of red, green and blue, from the highest bit down, is bit 3k, 3k + 1 and 3k + 2 of the class number; so
    neighbouring classes have colours far apart, and class 0 is black (VOC development kit, `VOClabelcolormap.m`).

    Args:
        num_classes: number of colours, at most 256.

    Returns:
        Red, green and blue of each class, 0..255.

    Raises:
        ValueError: `num_classes` is not within 0..256.
    """
    if not 0 <= num_classes <= 256:
        raise ValueError(f"num_classes is {num_classes}, and a palette has 0 to 256 colours")
    bits = np.unpackbits(np.arange(num_classes, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    padded = np.pad(bits, ((0, 0), (0, 1))).reshape(num_classes, 3, 3)  # class, k, channel; 9 bits = 3 × 3
    high_first = np.pad(padded.transpose(0, 2, 1), ((0, 0), (0, 0), (0, 5)))
    return np.packbits(high_first, axis=2)[..., 0]
