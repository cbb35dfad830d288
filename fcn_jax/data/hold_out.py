"""Set examples of a split apart to evaluate on: for data without a val split, or to tune without looking at val."""

import dataclasses
import hashlib

from fcn_jax.data.sources.source import Found, Listed
from fcn_jax.errors import InputError

HELD_OUT = "held-out"
"""The split of the examples that are set apart."""


def set_apart(found: Found, split: str, share: float) -> Found:
    """Move a share of a split to the split `held-out`: the examples whose names have the smallest hashes.

    So the order of the split does not matter, and each new example moves at most one other from one side to the other.

    Args:
        found: the examples of all splits.
        split: the split to take from.
        share: share of its examples, above 0 and below 1. Their number is rounded, and at least one.

    Raises:
        InputError: there is no such split, there is a split `held-out` already, or all examples would be taken.
    """
    if split not in found.splits:
        raise InputError(
            f"--data.hold-out takes from the split {split}, which is not there; there are {', '.join(found.splits)}: "
            "give one of them as --data.train-split"
        )
    if HELD_OUT in found.splits:
        raise InputError(f"there is a split {HELD_OUT} already; leave --data.hold-out away, or rename that split")
    examples = found.splits[split]
    count = max(1, round(share * len(examples)))
    if count >= len(examples):
        raise InputError(
            f"--data.hold-out {share:g} takes {count} of the {len(examples)} examples of {split}, and both parts need "
            "one; give another share"
        )
    held = {example.name for example in sorted(examples, key=_hash_name)[:count]}
    parts = {
        split: [example for example in examples if example.name not in held],
        HELD_OUT: [example for example in examples if example.name in held],
    }
    return dataclasses.replace(found, splits={**found.splits, **parts})


def _hash_name(example: Listed) -> bytes:
    return hashlib.sha256(example.name.encode()).digest()
