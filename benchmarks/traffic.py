"""What a program that is compiled for TPUs moves through their memory, read off its text.

An operation reads its operands from the memory and writes its result there. Arrays lie in tiles, such as 8 x 128
values of the two last axes, and are padded to whole tiles. Arrays in the memory space S(1), beside the compute units,
are not counted; they are fetched and stored by operations of their own, which are.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)}
# Operations that have no cost of their own. The start of an asynchronous one is counted at its end.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
FETCHED = {"copy-done", "slice-done"}
MOVING = {"copy", "transpose", "reshape", "reverse", "pad", "slice", "broadcast", "concatenate"}  # compute nothing
ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
OPERATION = re.compile(r"\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([a-z0-9-]+)\(([^)]*)\)(.*)")


class Traffic(NamedTuple):
    """Sums over the operations of a program, of one device.

    Attributes:
        moved: bytes that operations read from the memory and write to it, with the padding of the arrays.
        padding: how many of these are padding.
        copied: how many of these are moved by operations that compute nothing, such as copies to another layout.
        cycles: the compiler's estimate of the clock cycles.
    """

    moved: int
    padding: int
    copied: int
    cycles: int


class Array(NamedTuple):
    """An array that an operation makes.

    Attributes:
        size: its bytes.
        padded: its bytes with the padding of its tiles.
        is_beside: whether it is beside the compute units, and not in the memory.
    """

    size: int
    padded: int
    is_beside: bool


def read_traffic(hlo: str) -> Traffic:
    """Read the traffic of a compiled program; the bodies of its loops are not counted.

    Args:
        hlo: text of the program of one device.
    """
    results: dict[str, list[Array]] = {}
    moved = padding = copied = cycles = 0
    for line in hlo.split("\nENTRY ")[-1].splitlines():
        operation = OPERATION.match(line)
        if not operation:
            continue
        name, kind, operation_name, operands, rest = operation.groups()
        results[name] = list(measure_arrays(kind))
        estimate = re.search(r'"estimated_cycles":"(\d+)"', rest)
        cycles += int(estimate[1]) if estimate else 0
        if operation_name in FREE or operation_name.endswith("-start"):
            continue
        if operation_name in FETCHED:  # between the memory and the compute units, in either direction
            arrays = results[name]
        elif operation_name.endswith("-done"):  # its operand is a pair of what is read and what is written
            arrays = [array for array in results[name] * 2 if not array.is_beside]
        else:
            names = [name, *re.findall(r"%([\w.-]+)", operands)]
            arrays = [array for each in names for array in results.get(each, []) if not array.is_beside]
        padded = sum(array.padded for array in arrays)
        moved += padded
        padding += padded - sum(array.size for array in arrays)
        copied += padded if operation_name in MOVING else 0
    return Traffic(moved, padding, copied, cycles)


def measure_arrays(kind: str) -> Iterator[Array]:
    """Measure each array of a type."""
    for dtype, dimensions, layout in ARRAY.findall(kind):
        if dtype not in BYTES:
            continue
        lengths = [int(length) for length in dimensions.split(",") if length]
        padded = list(lengths)
        order = [int(axis) for axis in re.findall(r"\d+", layout.split(":")[0])]  # the last axis in memory is the first
        tile = re.search(r"T\(([\d,]+)\)", layout)
        sides = [int(side) for side in reversed(tile[1].split(","))] if tile else []
        for axis, side in zip(order, sides, strict=False):
            padded[axis] = -(-lengths[axis] // side) * side
        yield Array(BYTES[dtype] * math.prod(lengths), BYTES[dtype] * math.prod(padded), "S(" in layout)
