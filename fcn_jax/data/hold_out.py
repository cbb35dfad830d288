"""Set examples of a split apart to evaluate on: for data without a val split, or to tune without looking at val."""

import dataclasses
import hashlib

from fcn_jax.data.sources.source import Found, Listed
from fcn_jax.errors import InputError

HELD_OUT = "held-out"
"""The split of the examples that are set apart."""


def set_apart(found: Found, split: str, share: float) -> Found:
    """Move about a share of a split to the split `held-out`.

    A hash of its name decides for each example. So new examples move no other from one side to the other.

    Args:
        found: the examples of all splits.
        split: the split to take from.
        share: share of its examples, above 0 and below 1.

    Raises:
        InputError: there is no such split, there is a split `held-out` already, or one side gets no example.
    """
    if split not in found.splits:
        raise InputError(
            f"--data.hold-out takes from the split {split}, which is not there; there are {', '.join(found.splits)}: "
            "give one of them as --data.train-split"
        )
    if HELD_OUT in found.splits:
        raise InputError(f"there is a split {HELD_OUT} already; leave --data.hold-out away, or rename that split")
    kept: list[Listed] = []
    held: list[Listed] = []
    for example in found.splits[split]:
        digest = hashlib.sha256(example.name.encode()).digest()
        (held if int.from_bytes(digest[:4]) < share * 2**32 else kept).append(example)
    if not kept or not held:
        raise InputError(
            f"--data.hold-out {share:g} takes {len(held)} of the {len(kept) + len(held)} examples of {split}, and both "
            "parts need one; give another share"
        )
    return dataclasses.replace(found, splits={**found.splits, split: kept, HELD_OUT: held})
