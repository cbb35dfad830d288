"""End a process that is stuck, and print what each of its threads does."""

import contextlib
import faulthandler
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

STUCK = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
TICKS = 20  # looks in the time after which a process counts as stuck


@contextlib.contextmanager
def watch(limit: float) -> Iterator[Callable[[str, Function], Function]]:
    """End the process with status 75 if no watched function is called for `limit` seconds within the block.

    A stuck device, disk or thread cannot be mended from within. Only the end of the process lets its launcher start it
    again. A time in which the whole process stands still, as a laptop that sleeps does, counts at most as one look.

    Args:
        limit: the seconds; 0: never.

    Yields:
        Function that takes the name of a function's call and the function, and returns it watched.
    """
    idle, last, over = 0.0, "the start", threading.Event()

    def watched(name: str, function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            nonlocal idle, last
            idle, last = 0.0, name
            return function(*args)

        return call  # pyright: ignore[reportReturnType]

    def look() -> None:
        nonlocal idle
        pause = limit / TICKS
        while not over.wait(pause):
            idle += pause
            if idle >= limit:
                _end(limit, last)

    thread = threading.Thread(target=look, name="watchdog", daemon=True)
    if limit:
        thread.start()
    try:
        yield watched
    finally:
        over.set()


def _end(limit: float, last: str) -> None:
    try:
        print(
            f"fcn-jax: nothing has moved for {limit:g} s after the last {last}; a device, a disk or a thread that "
            "reads images is stuck. What each thread does follows. The process ends now; the same command goes on from "
            "the last checkpoint. --stuck-after gives another time",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
    finally:  # whatever standard error is
        os._exit(STUCK)
