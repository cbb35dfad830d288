"""Standard streams that are closed, full, gone or unable to write a name: whole processes, never a traceback."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import STEPS, read_metrics

# A stream that cannot be written: a full disk, or, where the device is missing, a file that is open for reading.
FULL = ">/dev/full" if Path("/dev/full").is_char_device() else "1</dev/null"
COMMAND = f"{shlex.quote(sys.executable)} -m fcn_jax"


def run(place, line: str, **environment: str) -> tuple[list[int], str]:
    """Run a line of bash; return the exit statuses of its last pipeline and what came out of it."""
    done = subprocess.run(
        ["bash", "-c", f'{line}\necho "statuses ${{PIPESTATUS[*]}}"'],
        cwd=place.root, env=place.environment | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output, _, statuses = done.stdout.rpartition("statuses ")
    assert "Traceback" not in output + done.stderr
    assert "Exception ignored" not in done.stderr
    return [int(status) for status in statuses.split()], output + done.stderr


@pytest.mark.parametrize("words", ["data list", "--help", "train --help", "predict --help"])
def test_a_reader_that_goes_away_ends_a_command_in_silence(place, words):
    # `exec 0<&-` closes the pipe at once, so that the first write fails.
    statuses, output = run(place, f"({COMMAND} {words}; echo $? >status) | (exec 0<&-; sleep 0.1)")
    assert statuses[-1] == 0
    assert (place.root / "status").read_text() == "141\n"
    assert output == ""


@pytest.mark.parametrize("words", ["data list", "train --help"])
def test_output_that_cannot_be_written_is_said_once(place, words):
    statuses, output = run(place, f"{COMMAND} {words} {FULL}")
    assert statuses == [1]
    assert re.fullmatch(r"fcn-jax: the output could not be written \(\[Errno \d+\] .+\)\n", output)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start_are_done_without(place, closed):
    assert run(place, f"{COMMAND} data list {closed}")[0] == [0]
    assert run(place, f"{COMMAND} data nothing {closed}")[0] == [2]


def test_letters_that_a_stream_cannot_write_are_written_as_escapes(place):
    statuses, output = run(place, f"{COMMAND} eval höhle", PYTHONIOENCODING="ascii")
    assert statuses == [2]
    assert r"h\xf6hle is not a run directory" in output


@pytest.mark.slow
def test_a_training_whose_reader_goes_away_saves_its_step_and_ends(place, undisturbed):
    words = shlex.join(place.train_words("headless"))
    statuses, _ = run(place, f"{COMMAND} {words} | head -1")
    assert statuses == [141, 0]
    steps = [line["step"] for line in read_metrics(place.root / "headless")]
    assert steps[-1] < STEPS
    assert (place.root / "headless" / "checkpoints" / str(steps[-1])).is_dir()


@pytest.mark.slow
def test_a_training_goes_on_when_its_output_cannot_be_written(place, undisturbed):
    words = shlex.join(place.train_words("mute"))
    statuses, output = run(place, f"{COMMAND} {words} {FULL}")
    assert statuses == [1]
    assert output.count("could not be written") == 1
    assert read_metrics(place.root / "mute") == read_metrics(undisturbed[0])
    assert (place.root / "mute" / "checkpoints" / str(STEPS)).is_dir()


@pytest.mark.slow
def test_a_training_whose_terminal_goes_away_saves_its_step(place, undisturbed):
    """A hang-up comes as SIGHUP, and from then on the terminal cannot be written."""
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fcn_jax", *place.train_words("hung-up")],
        cwd=place.root, env=place.environment, stdout=terminal, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    while b"loss" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    process.send_signal(signal.SIGHUP)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    last = read_metrics(place.root / "hung-up")[-1]["step"]
    assert (place.root / "hung-up" / "checkpoints" / str(last)).is_dir()
