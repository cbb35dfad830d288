"""Signals that ask a process to end, sent to real processes."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import pytest
from jax.experimental import multihost_utils

from fcn_jax.runtime.signals import catch_stop_signals

# Says "in" in the block, works until it is asked to stop, and says "stopped" after the block.
WORK = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
from fcn_jax.runtime.signals import catch_stop_signals
with catch_stop_signals() as stop:
    print("in", flush=True)
    while not stop.after(1):
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep({busy})
print("stopped", flush=True)
"""


@pytest.fixture(autouse=True)
def _listen():
    """Under `nohup`, or in the background, the tests and the processes that they start would ignore some signals."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def start(busy: float) -> Iterator[subprocess.Popen]:
    code = WORK.format(busy=busy)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()  # one that a failed test has left would be waited for without end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_wish(number):
    with start(busy=0) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert output == "asked\nstopped\n"


def test_a_second_interrupt_interrupts():
    with start(busy=60) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert output == ""


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with catch_stop_signals() as stop:
        assert (stop.after(1), stop.now()) == (False, False)
        assert signal.getsignal(signal.SIGTERM) not in before
        signal.raise_signal(signal.SIGTERM)
        assert stop.after(1)
        assert stop.now()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_several_processes_leave_sigterm_to_jax_and_turn_other_signals_into_it(monkeypatch):
    """JAX finds the step after which all of them stop; tests/training/test_processes.py has real ones."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 7)
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        with catch_stop_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGHUP)
            assert [stop.after(step) for step in (6, 7)] == [False, True]
            assert not stop.now()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM] * 3


def test_a_thread_catches_nothing():
    """Python has signals in its main thread only; a training in a thread goes on without them."""
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with catch_stop_signals() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.after(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_ignored(number):
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        with catch_stop_signals() as stop:
            signal.raise_signal(number)
            assert (stop.after(1), stop.now()) == (False, False)
            signal.raise_signal(signal.SIGTERM)
            assert stop.now()
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, previous)
