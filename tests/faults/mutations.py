"""Damage to files: bytes that are flipped, cut, inserted, swapped or made huge, and JSON with other values."""

import json
import math
import random
import struct
from collections.abc import Sequence
from typing import Any

# Numbers at the borders of lengths, counts and signs.
LARGE = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
# Strings that parsers of some format take for more than text.
WORDS = (b"../../../../tmp/x", b"/etc/passwd", b"\0", b"[" * 5000, b"9" * 5000, b"nan", b"-1", b"1e999", b"\xff\xfe")
VALUES = (
    None, True, 0, -1, 1, 3, 10**6, 2**63, 10**400, 0.5, -0.0, 1e308, math.inf, math.nan, "", "x", "\0", "\ud800",
    "../../x", "/dev/zero", "x" * 10_000, "9" * 5000, [], [[]], {}, [None], {"": None}, [0.1, 0.2, 0.3],
)  # fmt: skip


def damage(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Change a file in one to four places.

    Args:
        data: the file.
        rng: decides where and how.
        others: files to take pieces from.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_WAYS)(bytearray(data), rng, others)
    return bytes(data)


def damage_json(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Change values and keys of a file of JSON, or of one line of it, or its bytes."""
    if rng.random() < 0.3:
        return damage(data, rng, others)
    lines = data.splitlines() if rng.random() < 0.5 else [data]
    place = rng.randrange(len(lines) or 1)
    try:
        tree = json.loads(lines[place])
    except (ValueError, IndexError, RecursionError):
        return damage(data, rng, others)
    for _ in range(rng.choice((1, 1, 2))):
        tree = _change_value(tree, rng)
    lines[place] = json.dumps(tree).encode()
    return b"\n".join(lines)


def _change_value(tree: Any, rng: random.Random) -> Any:
    """Replace, remove, rename or add a value somewhere in a tree."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.1:
        return rng.choice(VALUES)
    if isinstance(tree, list):
        place = rng.randrange(len(tree))
        inner = [_change_value(tree[place], rng)] if rng.random() < 0.8 else rng.choice(([], [tree[place]] * 3))
        return [*tree[:place], *inner, *tree[place + 1 :]]
    key = rng.choice(list(tree))
    value = tree[key]
    if rng.random() < 0.8:
        return {**tree, key: _change_value(value, rng)}
    rest = {name: item for name, item in tree.items() if name != key}
    return rng.choice((rest, {**rest, str(rng.choice(VALUES)): value}, {**tree, "x": value}))


def _flip(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 1, 3, 20))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _replace(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    return data


def _cut_end(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    return data[: rng.randrange(rng.choice((9, len(data) + 1)))]


def _remove(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 4, 8, 100, len(data) // 4))]
    return data


def _insert(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice((rng.randbytes(rng.choice((1, 2, 4, 16, 300))), bytes(rng.choice((1, 8, 5000))),
                                    *WORDS))  # fmt: skip
    return data


def _swap(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    size = rng.choice((4, 16, 64, 512)) if len(data) >= 1024 else 4
    if len(data) >= 2 * size:
        one, two = (rng.randrange(len(data) // size) * size for _ in range(2))
        data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return data


def _repeat(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 32, 512))]
    data[start:start] = piece * rng.choice((1, 2, 50))
    return data


def _enlarge(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    """Write a number of the borders over 2, 4 or 8 bytes, in either order."""
    kind = rng.choice("HIQ")
    size = struct.calcsize(kind)
    if len(data) >= size:
        number = rng.choice(LARGE) % 256**size
        start = rng.randrange(len(data) - size + 1)
        data[start : start + size] = struct.pack(rng.choice("<>") + kind, number)
    return data


def _graft(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    """Go on with the end of another file."""
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_WAYS = (_flip, _flip, _replace, _replace, _cut_end, _remove, _insert, _swap, _repeat, _enlarge, _enlarge, _graft)
