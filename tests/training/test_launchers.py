"""Trainings started by real launchers on this machine: Slurm (the script of docs/clusters.md) and Open MPI."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import COMMAND, both_end_well, start
from slurm import find_missing, start_slurm
from small_trainings import read, steps, words, write_data
from xla_flags import FAST_COMPILE

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "clusters.md"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> dict[int, list[dict]]:
    """What one process with two and with four devices logs."""
    folder = tmp_path_factory.mktemp("alone")
    for devices in (2, 4):
        both_end_well([start(words(data, folder / str(devices)), devices)], 300)
    return {devices: read(folder / str(devices)) for devices in (2, 4)}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The command line with a small network, as a program."""
    file = tmp_path_factory.mktemp("program") / "fcn-jax"
    file.write_text(f"#!{sys.executable}\n{COMMAND}")
    file.chmod(0o755)
    return file


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    if missing := find_missing():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, start_slurm(Path(folder)) as environment:
        flags = f"--xla_force_host_platform_device_count=1 {FAST_COMPILE}"
        yield environment | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@pytest.mark.parametrize("count", [2, 4])
def test_srun(slurm, data, alone, program, tmp_path, count):
    command = ["srun", f"-n{count}", str(program), *words(data, tmp_path / "run")]
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_close(read(tmp_path / "run"), alone[count])
    assert done.stdout.count("step 12/12") == 1  # only one of them prints


@pytest.mark.parametrize("fault", ["stopped", "killed"])
def test_the_script_of_the_page_puts_a_job_back_and_it_goes_on(slurm, data, program, tmp_path, fault):
    long = ("--steps", 400, "--eval-every", 100)  # so that the signal comes before the end
    both_end_well([start(words(data, tmp_path / "one", *long), 2)], 300)
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", PAGE.read_text(), re.DOTALL)[1]
    given = "--nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --time=10"
    started = f"{program} {shlex.join(words(data, tmp_path / 'run', *long))}"
    script, count = re.subn(r"\./launch\.sh fcn8s .*?\n(?=status)", started + "\n", script, flags=re.DOTALL)
    assert count == 1
    script = re.sub(r"#SBATCH --(nodes|ntasks-per-node|gpus-per-node|cpus-per-task|time)=.*\n", "", script)
    (tmp_path / "job.sh").write_text(script)

    def ask(*command: str) -> str:
        return subprocess.run(
            command, env=slurm, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    job = ask("sbatch", "--parsable", *given.split(), "job.sh").strip()
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "100").is_dir())
    if fault == "stopped":
        ask("scancel", "--signal=TERM", job)
    else:
        os.kill(find_processes(str(program), str(tmp_path / "run"))[-1], signal.SIGKILL)
    wait_until(lambda: "Restarts=1" in ask("scontrol", "show", "job", job))
    saved = steps(tmp_path / "run")
    assert saved, "nothing is saved"
    wait_until(lambda: "JobState=PENDING" in ask("scontrol", "show", "job", job))
    ask("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_until(lambda: "JobState=COMPLETED" in ask("scontrol", "show", "job", job))
    (output,) = tmp_path.glob(f"*-{job}.out")
    assert f"goes on after step {saved[-1]} of 400" in output.read_text()
    assert_close(read(tmp_path / "run"), read(tmp_path / "one"))


def test_mpirun(data, alone, program, tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed (Debian's openmpi-bin)")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {FAST_COMPILE}",
    }
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", str(program)]
    command += words(data, tmp_path / "run")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_close(read(tmp_path / "run"), alone[2])


def find_processes(program: str, word: str) -> list[int]:
    """The processes of a Python program that were started with this word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_text().split("\0")
            if words[1:2] == [program] and word in words:
                found.append(int(file.parent.name))
    return sorted(found)


def wait_until(condition) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail("nothing has happened for five minutes")


def assert_close(got: list[dict], expected: list[dict]) -> None:
    """Sums over the network are rounded in another order than those within a process."""
    assert [(line["step"], line["split"]) for line in got] == [(line["step"], line["split"]) for line in expected]
    for one, other in zip(got, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
