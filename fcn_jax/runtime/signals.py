"""Catch signals that ask a program to end, so that it can end after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fcn_jax.runtime.streams import is_reader_gone


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], bool]]:
    """Catch the first SIGINT, SIGTERM or SIGHUP in the block; a second SIGINT interrupts as usual.

    A SIGHUP that is ignored, as under `nohup`, stays so. With several hosts no signal is caught: hosts that stop at
    different steps would wait for each other for ever. Nor is any caught outside the main thread, where Python has no
    signals.

    Yields:
        A function that returns whether a signal has come, or the reader of the output has gone.
    """
    received = []
    alone = jax.process_count() == 1

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    numbers = []
    if alone and threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(received) or (alone and is_reader_gone())
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
