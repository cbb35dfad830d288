"""Candidates that take turns in being measured: ours and its peers, one after the other in many short rounds.

A machine's speed drifts, and other programs run. Both sides of a round meet about the same machine, so the ratio is
taken within each round, and the median of these ratios and their quartiles are reported (history.py).

A candidate is a function that takes one turn and returns its value. Most are functions of a `Worker` (separate.py):
each library has a process of its own that stays alive, because the libraries' threads, memory allocators and settings
would disturb each other in one process, and starting and compiling anew for every round would leave time for few. All
processes may use the same cores, with a thread for each, and a turn begins when the one before has become idle.
"""

import functools
from collections.abc import Callable, Mapping

from separate import Worker

ROUNDS = 15
LEAST = 0.03  # seconds of a turn; calls that take less are repeated in it

Turn = Callable[[], float]


def take_turns(candidates: Mapping[str, Turn], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Let every candidate take a turn in each round, in every second round from the last to the first.

    Args:
        candidates: functions that take a turn and return its value, by name.
        rounds: number of rounds.

    Returns:
        The values of each candidate, one per round.
    """
    values: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(rounds):
        for name in candidates if index % 2 == 0 else reversed(candidates):
            values[name].append(candidates[name]())
    return values


def prepare(worker: Worker, name: str, least: float = LEAST) -> Turn:
    """Warm a function of a worker up, and make its turns last long enough to be measured.

    A turn begins with a call that is not timed. A program makes its calls without pauses, while here the system takes
    back freed memory during the turns of the others.

    Args:
        worker: the process that has the function.
        name: name of the function.
        least: seconds that a turn has to last.

    Returns:
        A function that takes a turn and returns the mean seconds of its calls.
    """
    worker.measure(name)  # compiles
    calls = 1 + int(least / worker.measure(name))
    if calls > 1:
        return functools.partial(worker.measure, name, calls)

    def take_turn() -> float:
        worker.measure(name)
        return worker.measure(name)

    return take_turn
