"""Measurements in processes of their own."""

import os
from pathlib import Path

import pytest
import separate

SCRIPT = """
import os, sys
sys.path.insert(0, {folder!r})
import separate

def describe(name: str, count: int):
    print("not the result")
    return [os.getpid(), name * count, os.environ.get("MARK")]

def fail():
    sys.exit("the disk is full")

assert separate.answer((describe, fail))
"""


@pytest.fixture
def script(tmp_path) -> str:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(folder=str(Path(separate.__file__).parent)))
    return str(file)


def test_a_function_runs_in_another_process(script):
    process, text, mark = separate.measure(script, "describe", os.environ | {"MARK": "m"}, name="ab", count=2)
    assert (text, mark) == ("abab", "m")
    assert process != os.getpid()


def test_what_fails_is_shown(script):
    with pytest.raises(SystemExit, match="the disk is full"):
        separate.measure(script, "fail")


def test_a_command_line_without_a_measurement_is_left_alone(monkeypatch):
    monkeypatch.setattr("sys.argv", ["script.py", "--quick"])
    assert not separate.answer(())


TURNS = """
import sys, time
sys.path.insert(0, {folder!r})
from pathlib import Path
import separate

def measure(name: str, log: str, warm: float):
    def note(what):
        with open(log, "a") as file:
            print(what, name, file=file)
    time.sleep(warm)
    note("ready")
    for _ in range(2):  # as a function that measures twice
        separate.wait_for_turn()
        note("begins")
        time.sleep(0.2)
        note("ends")
    return name

def fail(name: str, log: str, warm: float):
    sys.exit("the disk is full")

assert separate.answer((measure, fail))
"""


@pytest.fixture
def turns(tmp_path) -> str:
    file = tmp_path / "turns.py"
    file.write_text(TURNS.format(folder=str(Path(separate.__file__).parent)))
    return str(file)


def test_functions_get_ready_together_and_measure_one_after_the_other(turns, tmp_path):
    log = tmp_path / "log"
    calls = [("measure", {"name": name, "log": str(log), "warm": warm}) for name, warm in (("a", 0), ("b", 0.5))]
    assert list(separate.measure_in_turns(turns, calls)) == ["a", "b"]
    twice = ("begins", "ends", "begins", "ends")
    expected = ["ready a", "ready b", *(f"{what} a" for what in twice), *(f"{what} b" for what in twice)]
    assert log.read_text().splitlines() == expected


def test_a_function_that_fails_ends_the_others(turns, tmp_path):
    log = tmp_path / "log"
    calls = [(name, {"name": name, "log": str(log), "warm": 0}) for name in ("fail", "measure")]
    with pytest.raises(SystemExit, match="the disk is full"):
        list(separate.measure_in_turns(turns, calls))
    assert not log.exists() or "begins" not in log.read_text()


def test_a_result_is_there_before_the_next_measurement(turns, tmp_path):
    log = tmp_path / "log"
    calls = [("measure", {"name": name, "log": str(log), "warm": 0}) for name in ("a", "b")]
    results = separate.measure_in_turns(turns, calls)
    assert next(results) == "a"
    assert "begins b" not in log.read_text()
    assert list(results) == ["b"]


def test_a_function_by_itself_waits_for_nothing(turns, tmp_path):
    assert separate.measure(turns, "measure", name="a", log=str(tmp_path / "log"), warm=0) == "a"
