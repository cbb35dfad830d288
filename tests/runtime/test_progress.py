"""Progress as lines of a log, and as a bar on a terminal."""

import contextvars
import io
from types import SimpleNamespace

import pytest

from fcn_jax.runtime import progress as module
from fcn_jax.runtime.progress import hide_progress, show_progress, show_step, track


@pytest.fixture
def terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream))
    return stream


def see(stream: io.StringIO) -> str:
    """What is left on a terminal's last line: a carriage return goes back to its start."""
    line = ""
    for part in stream.getvalue().split("\r"):
        line = part + line[len(part) :]
    return line.rstrip()


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


def test_lines_have_the_rate_once_a_second_has_passed(monkeypatch, capsys):
    clock = iter([0.0, 0.0, 12.0, 12.0, 12.0, 400.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with show_progress("decoding", 100, "images", 10) as advance:
        advance(30)
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 10 of 100 images",
        "decoding: 40 of 100 images, 2.5 images/s",  # 30 in 12 seconds
        "decoding: 40 of 100 images, 0.075 images/s",  # 30 in 400 seconds
    ]


def test_brief_work_has_no_lines_unless_it_is_long(monkeypatch, capsys):
    for every, lines in ((10, []), (-1, ["scoring: 1 of 1 images"])):
        monkeypatch.setattr(module, "EVERY", every)
        with show_progress("scoring", 1, "images", brief=True) as advance:
            advance(1)
        assert capsys.readouterr().err.splitlines() == lines


def test_a_bar_on_a_terminal(terminal):
    with show_progress("preparing", 4, "images") as advance:
        advance(4)
    assert "preparing: 100%" in see(terminal)
    assert "4/4" in see(terminal)


def test_a_bar_below_another_goes_away(terminal):
    with show_progress("training", 2, "steps"):
        before = see(terminal)
        with show_progress("scoring", 4, "images") as advance:
            advance(4)
            assert "scoring" in terminal.getvalue()
        assert "scoring" not in see(terminal)
    assert "training" in before


def test_a_step_is_shown_until_it_is_done(terminal):
    with show_step("compiling"):
        assert see(terminal) == "compiling ..."
    assert see(terminal) == ""


def test_a_step_is_a_line_where_there_is_no_terminal(capsys):
    with show_step("compiling"):
        assert capsys.readouterr() == ("", "compiling\n")
    assert capsys.readouterr() == ("", "")


def test_items_are_counted_once_they_are_done(capsys):
    items = track(iter("ab"), "comparing", 2, "images")
    assert list(items) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["comparing: 0 of 2 images", "comparing: 2 of 2 images"]


@pytest.mark.parametrize("where", ["terminal", "capsys"])
def test_hidden_progress_leaves_nothing(where, request):
    def work() -> str:
        hide_progress(True)
        with show_progress("decoding", 1, "images") as advance, show_step("compiling"):
            advance(1)
        list(track("ab", "comparing", 2, "images"))
        return stream.getvalue() if where == "terminal" else "".join(stream.readouterr())

    stream = request.getfixturevalue(where)
    assert contextvars.copy_context().run(work) == ""
    with show_step("compiling"):  # the context has ended
        assert (stream.getvalue() if where == "terminal" else stream.readouterr().err) != ""
