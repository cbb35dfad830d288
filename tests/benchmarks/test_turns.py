"""Turns: their order, what a round pairs, and that ratios do not follow the machine's speed."""

import statistics
import time

import history
import pytest
import turns


def test_every_second_round_goes_backwards():
    order = []
    candidates = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    found = turns.take_turns(candidates, 3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


def test_there_are_at_least_fifteen_rounds():
    found = turns.take_turns({"a": lambda: 1.0})
    assert len(found["a"]) == turns.ROUNDS >= 15


def test_the_ratio_does_not_follow_the_machines_speed():
    """While the machine slows down to a third of its speed, a peer that takes twice as long has the ratio 2."""
    clock = iter(range(1000))

    def measure(work: float) -> float:
        return work * (1 + 2 * next(clock) / 30)

    found = turns.take_turns({"ours": lambda: measure(1.0), "peer": lambda: measure(2.0)}, 15)
    ratios = history.ratios(found["ours"], found["peer"], "s")
    assert statistics.median(ratios) == pytest.approx(2, rel=0.05)
    after = [measure(1.0) for _ in range(15)]  # as if the peer's rounds had all been before ours
    assert statistics.median(found["peer"]) / statistics.median(after) < 1.3


class FakeWorker:
    """A worker whose calls take a given time, the first of them longer."""

    def __init__(self, seconds: float):
        self.seconds, self.asked = seconds, []

    def measure(self, name: str, calls: int = 1) -> float:
        self.asked.append((name, calls))
        return self.seconds if len(self.asked) > 1 else 100.0


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 51), (0.02, 3), (2.0, 1)])
def test_short_calls_are_repeated_until_they_fill_a_turn(seconds, calls):
    worker = FakeWorker(seconds)
    turn = turns.prepare(worker, "step", least=0.05)
    assert turn() == seconds
    again = [("step", 1)] * (calls == 1)  # before one call another one, as `mean_seconds` has it before several
    assert worker.asked == [("step", 1), ("step", 1), *again, ("step", calls)]
    assert calls * seconds >= 0.05


def test_a_round_is_a_turn_of_each():
    """Real functions that sleep: the values are seconds, and a round takes the sum."""
    began = time.monotonic()
    found = turns.take_turns({"a": lambda: time.sleep(0.01) or 0.01, "b": lambda: time.sleep(0.02) or 0.02}, 2)
    assert time.monotonic() - began >= 0.06
    assert found == {"a": [0.01, 0.01], "b": [0.02, 0.02]}
