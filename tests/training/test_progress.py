"""The progress lines, and the share of time in which the devices wait for input."""

import contextvars
import re
import sys

import pytest

from fcn_jax.config import Config, OptimConfig
from fcn_jax.data.defaults import fill_config
from fcn_jax.runtime.progress import hide_progress
from fcn_jax.training import progress
from fcn_jax.training.progress import InputWait, Progress, format_extensions


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


def test_an_extension_says_what_it_does_to_the_rate():
    def extended(schedule, steps, *extend):
        optim = OptimConfig(learning_rate=0.1, schedule=schedule, power=1.0)
        return format_extensions(fill_config(Config(optim=optim, steps=steps, extend=extend)))

    assert extended("poly", 100, 200, 400) == [
        "extended from 100 to 200 steps: poly is stretched over all 200 steps, so the learning rate changes from 0.001 "
        "to 0.05 after step 100",
        "extended from 200 to 400 steps: poly is stretched over all 400 steps, so the learning rate changes from "
        "0.0005 to 0.05 after step 200",
    ]
    assert extended("constant", 100, 200) == [
        "extended from 100 to 200 steps: the schedule is constant, so the learning rate stays 0.1 after step 100"
    ]
    assert extended("poly", 100) == []


def test_lines_show_the_present_rate_and_what_it_leaves_to_do(monkeypatch, capsys):
    """100 steps of 4 images: a second each at first, then two. Compilation and evaluation do not count."""
    clock = Clock(monkeypatch)
    with Progress(fill_config(Config(steps=100, batch_size=4)), 0) as shown:
        clock.now += 60  # compilation, and the first step
        shown.restart(1)
        shown.show(1, 2.0, 0.5)
        clock.now += 9
        shown.show(10, 1.5, 0.0)
        clock.now += 30  # an evaluation
        shown.restart(10)
        clock.now += 20
        shown.show(20, 1.0, 0.25)
    assert capsys.readouterr().out.splitlines() == [
        "step 1/100  loss 2.0000  input 50.0%",
        "step 10/100  loss 1.5000  4.0 images/s  input 0.0%  0:01:30 left",
        "step 20/100  loss 1.0000  2.0 images/s  input 25.0%  0:02:40 left",
    ]


def test_a_terminal_has_a_bar_with_the_same_facts(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    clock = Clock(monkeypatch)
    with Progress(fill_config(Config(steps=100, batch_size=4)), 10) as shown:
        clock.now += 20
        shown.show(20, 1.0, 0.25)
        shown.say("step 20: mean IU 0.5")
    lines = re.split(r"[\r\n]+", capsys.readouterr().out)
    assert "step 20: mean IU 0.5" in lines
    assert "20/100 [" in lines[-2]
    assert lines[-2].endswith("loss 1.0000, 2.0 images/s, input 25.0%]")


def test_steps_are_hidden_and_what_is_said_is_not(capsys):
    def work() -> None:
        hide_progress(True)
        with Progress(fill_config(Config(steps=100, batch_size=4)), 0) as shown:
            shown.show(10, 1.5, 0.0)
            shown.say("step 10: mean IU 0.5")

    contextvars.copy_context().run(work)
    assert capsys.readouterr() == ("step 10: mean IU 0.5\n", "")
