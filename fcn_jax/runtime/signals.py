"""Catch signals that ask a program to end, so that it can end after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from fcn_jax.runtime.streams import is_reader_gone


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[int], bool]]:
    """Catch the first SIGINT, SIGTERM or SIGHUP in the block; a second SIGINT interrupts as usual.

    A SIGHUP that is ignored, as under `nohup`, stays so. No signal is caught outside the main thread, where Python has
    none.

    Several processes have to end after the same step. JAX catches SIGTERM in each, and agrees on a step with the
    others; the other signals are turned into SIGTERM.

    Yields:
        A function that takes the number of steps taken, and returns whether to stop after them, because a signal has
        come or the reader of the output has gone. It has to be called after every step.
    """
    received = []
    alone = jax.process_count() == 1

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        if not alone:
            signal.raise_signal(signal.SIGTERM)

    def is_stop_wanted(step: int) -> bool:
        if alone:
            return bool(received) or is_reader_gone()
        return multihost_utils.reached_preemption_sync_point(step)

    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGINT, signal.SIGTERM] if alone else [signal.SIGINT]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield is_stop_wanted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
