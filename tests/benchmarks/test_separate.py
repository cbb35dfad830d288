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
