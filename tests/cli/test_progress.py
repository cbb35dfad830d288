"""Progress of whole commands: a bar on a terminal, lines elsewhere, nothing with --quiet; and the output as results."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading

import pytest

ESCAPE = "\x1b"


def run_in_terminal(place, *words: str) -> tuple[str, str]:
    """Run a command whose errors go to a pseudo-terminal; return what it prints there, and its output."""
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows and columns
    process = subprocess.Popen(
        [sys.executable, "-m", "fcn_jax", *words],
        cwd=place.root, env=place.environment, stdout=subprocess.PIPE, stderr=terminal, text=True,
    )  # fmt: skip
    os.close(terminal)
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(master, 10_000):
                parts.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    output, _ = process.communicate(timeout=300)
    reader.join()
    os.close(master)
    shown = b"".join(parts).decode()
    assert process.returncode == 0, shown
    return shown, output


def run_without(place, *words: str) -> tuple[str, str]:
    """Run a command without a terminal; return its errors and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "fcn_jax", *words],
        cwd=place.root, env=place.environment, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stderr, done.stdout


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_the_output_has_the_scores_alone(place, undisturbed):
    shown, output = run_in_terminal(place, "eval", undisturbed[0].name)
    assert "starting JAX ..." in shown
    assert "scoring: 100%" in shown
    assert "3/3 [" in shown
    assert "images/s" in shown
    assert output.startswith("class ")
    assert "scoring" not in output
    assert "\r" not in output
    assert ESCAPE not in output


@pytest.mark.slow
def test_quiet_leaves_the_scores(place, undisturbed):
    shown, output = run_in_terminal(place, "eval", undisturbed[0].name, "--quiet")
    assert shown == ""
    assert output.startswith("class ")


def test_without_a_terminal_results_and_progress_are_lines_of_two_streams(place, undisturbed):
    shown, output = run_without(place, "predict", undisturbed[0].name, "data/images/tiny", "--out", "lines")
    assert sorted(output.splitlines()) == [f"lines/tiny{index}.png" for index in range(3)]
    lines = shown.splitlines()
    assert lines[:3] == ["starting JAX", "reading the checkpoint", "segmenting: 0 of 3 images"]
    assert lines[-2].startswith("segmenting: 3 of 3 images")
    assert lines[-1].startswith("3 images in ")
    assert ESCAPE not in shown + output
    assert "\r" not in shown + output
