"""Functions in processes of their own: called once, and in workers that wait for their turn."""

import os
import subprocess
import sys
import time
from pathlib import Path

import meters
import pytest
import separate

SCRIPT = """
import os, sys, threading, time
sys.path.insert(0, {folder!r})
import separate

def describe(name: str, count: int):
    print("not the result")
    return [os.getpid(), name * count, os.environ.get("MARK")]

def fail():
    sys.exit("the disk is full")

def work(spin: float):
    calls = []

    def compute():
        print("not an answer")
        calls.append(1)
        time.sleep(0.01)

    def compute_behind():  # a thread goes on after the call, as those of libraries do
        until = time.monotonic() + spin
        def run():
            while time.monotonic() < until:
                pass
        threading.Thread(target=run, daemon=True).start()

    return {{"compute": compute, "behind": compute_behind, "fail": fail, "calls": calls.__len__, "process": os.getpid}}

def torch_library():
    import torch
    torch.set_num_threads(2)
    x, layer = torch.randn(4, 32, 64, 64), torch.nn.Conv2d(32, 32, 3)
    return {{"compute": lambda: layer(x).sum().backward()}}

def jax_library():
    import jax, jax.numpy as jnp
    x, kernel = jnp.ones((4, 64, 64, 32)), jnp.ones((3, 3, 32, 32))
    dims = ("NHWC", "HWIO", "NHWC")
    convolve = jax.jit(lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims))
    return {{"compute": lambda: jax.block_until_ready(convolve(x))}}

assert separate.answer((describe, fail, work, torch_library, jax_library))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("separate") / "script.py"
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


def test_a_worker_prepares_once_and_is_ended(script):
    with separate.start(script, "work", spin=0) as worker:
        process = worker.ask("process")
        assert process == worker.ask("process") == worker.process.pid != os.getpid()
        assert worker.ask("calls") == 0
        assert 0.01 <= worker.measure("compute") < 1
        assert worker.ask("calls") == 1
        # Several calls: one before them, and the mean of the others.
        assert 0.01 <= worker.measure("compute", 4) < 1
        assert worker.ask("calls") == 1 + 1 + 4
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_worker_that_cannot_prepare_or_call_is_shown(script):
    with (
        separate.start(script, "fail") as worker,
        pytest.raises(SystemExit, match=r"(?s)the disk is full.*ended with 1"),
    ):
        worker.wait_until_ready()
    with separate.start(script, "work", spin=0) as worker, pytest.raises(SystemExit, match="the disk is full"):
        worker.measure("fail")


def test_a_worker_that_was_killed_while_it_waited_is_shown(script):
    def measure_killed() -> None:
        with separate.start(script, "work", spin=0) as worker:
            worker.wait_until_ready()
            worker.process.kill()
            worker.process.wait()
            worker.measure("compute")

    with pytest.raises(SystemExit, match="ended with -9"):
        measure_killed()


def test_a_turn_ends_when_the_threads_of_the_worker_are_idle(script):
    with separate.start(script, "work", spin=0.6) as worker:
        worker.wait_until_ready()
        began = time.monotonic()
        assert worker.measure("behind") < 0.5
        assert time.monotonic() - began > 0.5


def test_a_worker_that_goes_on_computing_is_refused(script, monkeypatch):
    monkeypatch.setattr(meters, "LONGEST", 0.3)
    with separate.start(script, "work", spin=60) as worker, pytest.raises(SystemExit, match="still computes"):
        worker.measure("behind")


@pytest.mark.parametrize("library", ["jax", pytest.param("torch", marks=pytest.mark.peers)])
def test_the_threads_of_a_library_that_waits_compute_nothing(script, library):
    pytest.importorskip(library)
    with separate.start(script, f"{library}_library") as worker:
        worker.measure("compute", 5)
        before = meters.cpu_seconds(worker.process.pid)
        time.sleep(0.5)
        assert meters.cpu_seconds(worker.process.pid) - before < 0.005
        worker.measure("compute", 5)
        assert meters.cpu_seconds(worker.process.pid) > before


def test_one_worker_at_a_time_is_alone(tmp_path):
    """Of two processes one is in the block at a time."""
    code = """
import time
from separate import alone
with alone():
    began = time.monotonic()
    time.sleep(0.5)
    print(began, time.monotonic())
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(separate.__file__).parent)}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (_, first_ended), (second_began, _) = sorted(tuple(map(float, p.communicate()[0].split())) for p in processes)
    assert first_ended <= second_began
