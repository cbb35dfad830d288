"""Images that occur more than once: pixel by pixel, or nearly so.

Two images look alike if their difference hashes differ in few bits. Such a hash says for each of 8x8 places whether the
image gets brighter to the right, and whether it gets brighter downwards. It stays nearly the same when an image is
scaled, compressed or brightened. It does not see that an image was mirrored, turned or cropped.

On PASCAL VOC 2012 no two of 2154 photographs are nearer than 20 of the 128 bits. Neighbouring frames of a film are at
0 to 7.
"""

import hashlib
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Integer, UInt8, UInt16, UInt64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 8  # places of a difference hash per row and column
BANDS = 8  # a hash is compared only with those that equal it in one of so many bands of 16 bits
NEAR = BANDS - 1  # bits; two hashes that differ in no more have an equal band


def hash_pixels(
    pixels: UInt8[np.ndarray, "height width *channels"] | UInt16[np.ndarray, "height width *channels"],
) -> bytes:
    """Hash the size and all pixels of an image or a label to 16 bytes."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, key=repr(pixels.shape).encode()).digest()


def hash_appearance(image: UInt8[np.ndarray, "height width 3"]) -> UInt64[np.ndarray, "2"]:
    """Compute the difference hash of an image: 64 bits for steps to the right, and 64 for steps downwards.

    The image is turned to grey and averaged to 9x8 cells, and to 8x9. A bit is 1 if a cell is darker than the next.
    """
    grey = Image.fromarray(image).convert("L")
    wide, tall = (np.asarray(grey.resize(size, Image.Resampling.BOX)) for size in ((SIDE + 1, SIDE), (SIDE, SIDE + 1)))
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (tall[1:] > tall[:-1]).ravel()])
    return np.packbits(bits).view(np.uint64)


def count_bits(
    hashes: UInt64[np.ndarray, "images 2"], other: UInt64[np.ndarray, "2"]
) -> Integer[np.ndarray, " images"]:
    """Count the bits in which each hash differs from another one."""
    return np.bitwise_count(hashes ^ other).sum(axis=1)


def group_equal(hashes: Sequence[Hashable]) -> list[list[int]]:
    """Group the places of equal hashes. Only groups of at least two are returned, in order of their first place."""
    places: dict[Hashable, list[int]] = {}
    for place, value in enumerate(hashes):
        places.setdefault(value, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def group_alike(hashes: UInt64[np.ndarray, "images 2"]) -> list[list[int]]:
    """Group the places of hashes that differ in at most `NEAR` bits, directly or through others of their group.

    For varied images the time is nearly linear in their number, and so it is for a film. It grows with the square of
    the number of images that share a band and do not look alike. The memory is linear.

    Returns:
        Groups of at least two places, in order of their first place.
    """
    unique, kinds = np.unique(hashes, axis=0, return_inverse=True)
    bands = np.ascontiguousarray(unique).view(np.uint16).reshape(len(unique), BANDS)
    pairs = []
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        ends = [*(np.flatnonzero(np.diff(band[order])) + 1).tolist(), len(order)]
        for start, end in pairwise([0, *ends]):
            waiting, reached = order[start:end], []
            while waiting.size:  # those that are alike to one of a group leave, and are compared with the others later
                if not reached:
                    reached, waiting = [waiting[0]], waiting[1:]
                one = reached.pop()
                near = count_bits(unique[waiting], unique[one]) <= NEAR
                pairs += [(one, other) for other in waiting[near]]
                reached += waiting[near].tolist()
                waiting = waiting[~near]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(unique), len(unique)))
    _, groups = connected_components(graph, directed=False)
    return group_equal(groups[kinds.ravel()].tolist())
