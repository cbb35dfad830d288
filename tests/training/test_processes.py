"""Trainings in several processes that meet by flags: what they compute, how they stop, and what they refuse."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import both_end_well, end_all, free_address, start, start_all
from small_trainings import read, steps, words, write_data

import fcn_jax


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


# Enough steps for a signal to come before the end.
LONG = ("--steps", 300, "--eval-every", 50)


def wait_for(run: Path, step: int) -> None:
    """Waits until a run has logged a step."""
    for _ in range(1200):
        if (run / "metrics.jsonl").exists() and any(line["step"] >= step for line in read(run)):
            return
        time.sleep(0.1)
    pytest.fail(f"{run} has not taken step {step} in two minutes")


def run_alone(data: Path, run: Path, devices: int, *more: object) -> None:
    both_end_well([start(words(data, run, *more), devices)], 300)


def stop_after(processes: list[subprocess.Popen], run: Path, step: int) -> None:
    """Stops all processes by a signal to the last one, once a step is logged."""
    wait_for(run, step)
    processes[-1].send_signal(signal.SIGTERM)
    for status, output in end_all(processes, 200):
        assert status == 75, output


def assert_same(got: list[dict], expected: list[dict]) -> None:
    """Every number is equal, but the loss of val: each process adds up that of its images, and then the sums."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        loss = {"loss": pytest.approx(other["loss"], rel=1e-6)} if other["split"] == "val" else {}
        assert one == other | loss


def test_a_signal_to_one_stops_both_after_the_same_step(data, tmp_path):
    stop_after(start_all(2, words(data, tmp_path / "run", *LONG)), tmp_path / "run", 2)
    logged = [line["step"] for line in read(tmp_path / "run") if line["split"] == "train"]
    assert logged == [*range(1, steps(tmp_path / "run")[-1] + 1)]


@pytest.mark.slow
def test_two_that_were_stopped_end_as_one_with_two_devices_does_bit_for_bit(data, tmp_path):
    run_alone(data, tmp_path / "one", 2, *LONG)
    stop_after(start_all(2, words(data, tmp_path / "two", *LONG)), tmp_path / "two", 2)
    both_end_well(start_all(2, words(data, tmp_path / "two", *LONG)), 300)
    assert_same(read(tmp_path / "two"), read(tmp_path / "one"))


@pytest.mark.slow
def test_a_signal_before_the_first_step_of_a_resumed_run(data, tmp_path):
    """JAX alone would have all processes stop after step 1, which is long taken."""
    run = tmp_path / "run"
    stop_after(start_all(2, words(data, run, *LONG)), run, 20)
    saved, before = steps(run), (run / "config.json").stat().st_mtime_ns
    processes = start_all(2, words(data, run, *LONG))
    while (run / "config.json").stat().st_mtime_ns == before:  # it is written anew just before the state is restored
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    for status, output in end_all(processes, 300):
        assert status == 75, output
    assert steps(run)[-1] <= saved[-1] + 20
    both_end_well(start_all(2, words(data, run, *LONG)), 300)


@pytest.mark.slow
def test_restore_across_numbers_of_processes(data, tmp_path):
    """Four processes, then two, one and four again, always with four devices, against an undisturbed run."""
    run_alone(data, tmp_path / "one", 4, *LONG)
    for count, end in ((4, 40), (2, 90), (1, 140), (4, None)):
        processes = start_all(count, words(data, tmp_path / "many", *LONG), 4 // count)
        if end is None:
            both_end_well(processes, 200)
        else:
            stop_after(processes, tmp_path / "many", end)
    expected, got = read(tmp_path / "one"), read(tmp_path / "many")
    assert [(line["step"], line["split"]) for line in got] == [(line["step"], line["split"]) for line in expected]
    for one, many in zip(expected, got, strict=True):
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-4)
        if one["split"] == "val":
            assert many["mean_iu"] == pytest.approx(one["mean_iu"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_soon_and_the_same_command_goes_on(data, tmp_path, killed):
    run_alone(data, tmp_path / "one", 2)
    two = start_all(2, words(data, tmp_path / "two"))
    wait_for(tmp_path / "two", 6)
    two[killed].kill()
    began = time.monotonic()
    results = end_all(two, 100)
    assert time.monotonic() - began < 30
    assert results[killed][0] == -signal.SIGKILL
    status, output = results[1 - killed]
    # Either this program or JAX notices it first.
    assert status != 0
    assert "another process has ended" in output or "another task died" in output
    assert 4 in steps(tmp_path / "two")
    both_end_well(start_all(2, words(data, tmp_path / "two")), 300)
    assert_same(read(tmp_path / "two"), read(tmp_path / "one"))


def start_differing(first: list, second: list, package: Path | None = None) -> list[tuple[int, str]]:
    """Starts two processes with words of their own, and the second with another package."""
    address = free_address()
    places = [["--coordinator", address, "--num-processes", "2", "--process-id", str(i)] for i in range(2)]
    return end_all([start(first + places[0]), start(second + places[1], package=package)], 300)


@pytest.mark.slow
@pytest.mark.parametrize("difference", ["configuration", "data", "code", "missing"])
def test_processes_that_differ_are_named_before_the_first_step(data, tmp_path, difference):
    run, other, package = tmp_path / "run", data, None
    more: list = []
    match difference:
        case "configuration":
            more, message = ["--optim.learning-rate", 0.7], "optim.learning_rate is 0.7, and 0.05 in process 0"
        case "data":
            other = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
            (other / "images/train/0.png").unlink()
            (other / "labels/train/0.png").unlink()
            message = "the data (names and sizes of the images) is "
        case "code":
            package = tmp_path / "package"
            shutil.copytree(Path(fcn_jax.__file__).parent, package / "fcn_jax")
            with (package / "fcn_jax/errors.py").open("a") as file:
                file.write("# another version\n")
            message = "the code is "
        case _:
            other, message = tmp_path / "nowhere", "process 1 has failed on "
    results = start_differing(words(data, run), words(other, run, *more), package)
    assert [status for status, _ in results] == [2, 2], results
    assert message in results[0][1]
    if difference == "missing":
        assert f"the class names cannot be read from {other}" in results[1][1]
    else:
        assert "process 1 on " in results[0][1]
        assert message in results[1][1]
    assert not run.exists()
