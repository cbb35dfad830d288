"""Progress as lines of a log, and as a bar on a terminal."""

import io
import sys

import pytest

from fcn_jax.runtime import progress as module
from fcn_jax.runtime.progress import show_progress


@pytest.mark.parametrize(
    ("what", "total", "unit", "before", "steps", "lines"),
    [
        ("fetching", 3_000_000, "B", 1_000_000, [1_000_000], ["1 of 3 MB", "2 of 3 MB", "2 of 3 MB"]),
        ("preparing", None, "images", 0, [2], ["0 images", "2 images", "2 images"]),
        ("decoding", 9, "images", 0, [4, 5], ["0 of 9 images", "4 of 9 images", "9 of 9 images", "9 of 9 images"]),
    ],
)
def test_lines_where_there_is_no_terminal(monkeypatch, capsys, what, total, unit, before, steps, lines):
    monkeypatch.setattr(module, "EVERY", -1)  # a line for each step
    with show_progress(what, total, unit, before) as advance:
        for step in steps:
            advance(step)
    assert capsys.readouterr().err.splitlines() == [f"{what}: {line}" for line in lines]


def test_few_lines_for_many_steps(capsys):
    with show_progress("decoding", 1000, "images") as advance:
        for _ in range(1000):
            advance(1)
    assert capsys.readouterr().err.splitlines() == ["decoding: 0 of 1000 images", "decoding: 1000 of 1000 images"]


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_progress("preparing", 4, "images") as advance:
        advance(4)
    assert "preparing: 100%" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
