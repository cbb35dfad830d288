"""The time of a call, how often to measure it, and the memory of the process that measures it."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from separate import wait_for_turn


class Effort(NamedTuple):
    """How often a benchmark measures a case.

    Attributes:
        processes: processes for ours and for the peer, by turns.
        rounds: medians that each process measures, one after the other.
        repeats: calls of which a median is taken.
    """

    processes: int
    rounds: int
    repeats: int


# On a GPU, starting and compiling take far longer than the calls, so the rounds share a process.
ON_GPU = Effort(processes=1, rounds=3, repeats=30)


def seconds(function: Callable[[], object], rounds: int, repeats: int) -> list[float]:
    """Measure the median seconds of calls that wait for their results, in each round, after two that warm up.

    The first measurement of a process waits for its turn. Whatever else it compiles should be called before that.
    """
    function()
    function()
    wait_for_turn()
    return [statistics.median(_seconds(function) for _ in range(repeats)) for _ in range(rounds)]


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def resident() -> int:
    """Return the largest resident set of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
