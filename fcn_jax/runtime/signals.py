"""Catch signals that ask a program to end, so that it can end after the current step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils

from fcn_jax.runtime.streams import is_reader_gone


class StopWish(NamedTuple):
    """The wish of a signal, or of a reader of the output that has gone, that the program ends.

    Attributes:
        after: takes the number of steps taken, and returns whether to stop after them. Several processes agree on the
            step, so each has to call it after every step.
        now: returns whether a single process may stop at once; False in one of several.
    """

    after: Callable[[int], bool]
    now: Callable[[], bool]


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[StopWish]:
    """Catch the first SIGINT, SIGTERM or SIGHUP in the block; a second SIGINT interrupts as usual.

    A SIGHUP or SIGINT that is ignored, as under `nohup` or in the background jobs of a script, stays so. No signal is
    caught outside the main thread, where Python has none.

    Several processes have to end after the same step. JAX catches SIGTERM in each, and agrees on a step with the
    others; the other signals are turned into SIGTERM.
    """
    received = []
    alone = jax.process_count() == 1

    def note(number: int, frame: Any) -> None:
        received.append(number)
        if signal.SIGINT in previous:
            signal.signal(signal.SIGINT, previous[signal.SIGINT] or signal.SIG_DFL)
        if not alone:
            signal.raise_signal(signal.SIGTERM)

    def is_wanted_now() -> bool:
        return alone and (bool(received) or is_reader_gone())

    def is_wanted_after(step: int) -> bool:
        return is_wanted_now() if alone else multihost_utils.reached_preemption_sync_point(step)

    numbers = []
    if threading.current_thread() is threading.main_thread():
        may_be_ignored = [signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        numbers = [number for number in may_be_ignored if signal.getsignal(number) != signal.SIG_IGN]
        numbers += [signal.SIGTERM] if alone else []
    previous = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, note)
        yield StopWish(is_wanted_after, is_wanted_now)
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: one that is not of Python
