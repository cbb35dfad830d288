"""Signals that ask a process to end, sent to real processes."""

import signal
import subprocess
import sys
import threading

import jax
import pytest

from fcn_jax.runtime.signals import catch_stop_signals

# Says "in" in the block, works until it is asked to stop, and says "stopped" after the block.
WORK = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
from fcn_jax.runtime.signals import catch_stop_signals
with catch_stop_signals() as is_stop_wanted:
    print("in", flush=True)
    while not is_stop_wanted():
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep({busy})
print("stopped", flush=True)
"""


def start(busy: float) -> subprocess.Popen:
    code = WORK.format(busy=busy)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    return process


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
    with catch_stop_signals() as is_stop_wanted:
        assert not is_stop_wanted()
        assert signal.getsignal(signal.SIGTERM) not in before
        signal.raise_signal(signal.SIGTERM)
        assert is_stop_wanted()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_one_of_several_hosts_catches_nothing(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    before = signal.getsignal(signal.SIGTERM)
    with catch_stop_signals() as is_stop_wanted:
        assert signal.getsignal(signal.SIGTERM) is before
        assert not is_stop_wanted()


def test_a_thread_catches_nothing():
    """Python has signals in its main thread only; a training in a thread goes on without them."""
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with catch_stop_signals() as is_stop_wanted:
            seen.append((signal.getsignal(signal.SIGTERM), is_stop_wanted()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_a_hangup_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_stop_signals() as is_stop_wanted:
            signal.raise_signal(signal.SIGHUP)
            assert not is_stop_wanted()
    finally:
        signal.signal(signal.SIGHUP, previous)
