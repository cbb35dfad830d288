"""Catch signals that ask a program to end, so that it can end after the current step."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], bool]]:
    """Catch the first SIGINT or SIGTERM in the block; a second SIGINT interrupts as usual.

    With several hosts no signal is caught: hosts that stop at different steps would wait for each other for ever.

    Yields:
        A function that returns whether a signal has come.
    """
    received = []

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else ()
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
