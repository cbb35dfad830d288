"""The share of time in which the devices wait for input."""

import pytest

from fcn_jax.training import progress
from fcn_jax.training.progress import InputWait


class Clock:
    """Seconds that pass only when something takes them."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)

    def batches(self, *seconds):
        for number, takes in enumerate(seconds):
            self.now += takes
            yield number


class Loss:
    """An array that a step computes until a certain time."""

    def __init__(self, clock, until):
        self.clock, self.until = clock, until

    def is_ready(self):
        return self.clock.now >= self.until


def test_only_waits_of_an_idle_device_count(monkeypatch):
    clock = Clock(monkeypatch)
    wait, batches = InputWait(), clock.batches(2, 1, 3, 4)
    assert wait.take(batches, None) == 0  # 2 s: there was no step before
    assert wait.take(batches, {"loss": Loss(clock, 110.0)}) == 1  # at 103 the step before still runs
    assert wait.take(batches, {"loss": Loss(clock, 106.0)}) == 2  # it has ended, when the batch comes, at 106: 3 s
    clock.now += 4
    assert wait.share() == pytest.approx((2 + 3) / 10)
    clock.now += 50  # not training
    assert wait.take(batches, {"loss": Loss(clock, 0)}) == 3
    clock.now += 4
    assert wait.share() == pytest.approx(4 / 8)


def test_what_is_not_training_does_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    wait, batches = InputWait(), clock.batches(2, 1)
    wait.take(batches, None)
    clock.now += 30  # an evaluation
    wait.restart()
    assert wait.share() == 0
    wait.take(batches, None)
    clock.now += 3
    assert wait.share() == pytest.approx(1 / 4)
