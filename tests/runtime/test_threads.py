"""A map in threads: the same results, in order, side by side, few at once; errors come out, what has begun is ended."""

import threading
import time

import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime.threads import map_in_threads


def test_results_are_those_of_map_in_order():
    def slower_first(item: int) -> int:
        time.sleep(0.002 * (item % 5 == 0))
        return item * item

    assert list(map_in_threads(slower_first, range(100), 4)) == [item * item for item in range(100)]
    assert list(map_in_threads(str, [], 3)) == []
    assert list(map_in_threads(str, [7], 1)) == ["7"]


def test_calls_run_side_by_side():
    meet = threading.Barrier(3)
    # Each call waits until three are there: one after the other would never end.
    assert list(map_in_threads(lambda item: meet.wait(10) * 0 + item, range(9), 3)) == list(range(9))


def test_calls_go_on_while_the_caller_is_busy():
    began = [threading.Event() for _ in range(4)]
    release = threading.Event()

    def call(item: int) -> int:
        began[item].set()
        if item:
            release.wait(10)
        else:
            time.sleep(0.2)  # until others are drawn
        return item

    results = map_in_threads(call, range(4), 4, ahead=3)
    assert next(results) == 0
    assert began[1].wait(10)
    assert began[2].wait(10)
    assert not began[3].is_set()  # three are drawn, no more
    release.set()
    assert list(results) == [1, 2, 3]


@pytest.mark.parametrize("ahead", [1, 3, None])
def test_no_more_than_ahead_are_drawn(ahead):
    drawn = 0

    def items():
        nonlocal drawn
        for item in range(40):
            drawn += 1
            yield item

    for given, item in enumerate(map_in_threads(lambda item: time.sleep(0.001) or item, items(), 2, ahead)):
        assert item == given
        assert drawn - given <= (ahead or 4)


def test_an_error_in_a_thread_comes_out():
    done = []

    def call(item: int) -> int:
        if item == 3:
            raise OSError(28, "No space left on device")
        done.append(item)
        return item

    results = map_in_threads(call, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="No space left"):
        next(results)
    assert 3 not in done
    assert len(done) < 20


def test_an_error_of_the_items_comes_out():
    def items():
        yield 1
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        list(map_in_threads(str, items(), 2))


def test_what_has_begun_is_ended_when_the_caller_stops():
    begun, ended = [], []

    def call(item: int) -> int:
        begun.append(item)
        time.sleep(0.05 * (item > 0))
        ended.append(item)
        return item

    results = map_in_threads(call, range(1000), 2, ahead=10)
    next(results)
    results.close()
    assert sorted(begun) == sorted(ended)
    assert len(ended) < 10
    time.sleep(0.1)
    assert sorted(begun) == sorted(ended)


def test_there_is_at_least_one_thread():
    with pytest.raises(InputError, match="the number of threads or workers is 0; it must be at least 1"):
        next(map_in_threads(str, [1], 0))
