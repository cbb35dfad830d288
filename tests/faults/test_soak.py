"""A long run: memory, open files and threads stay as they are, steps stay as fast, and files stay few."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from processes import end_all, start
from small_trainings import steps, write_data

STEPS = 20_000


@pytest.mark.slow
def test_twenty_thousand_steps(tmp_path):
    data, run = write_data(tmp_path / "data"), tmp_path / "run"
    flags = f"--data.name folder --data.dir {data} --data.cache {tmp_path / 'cache'} --augment.crop 32 --batch-size 8"
    conduct = f"--steps {STEPS} --log-every 20 --eval-every 1000 --checkpoint-every 500 --run-dir {run}"
    process = start(["train", "fcn8s", *flags.split(), *conduct.split()])
    samples = []
    while process.poll() is None:
        time.sleep(2)
        if step := read_step(run):
            samples.append((step, time.monotonic(), *read_use(process.pid)))
    ((status, output),) = end_all([process], 60)
    assert status == 0, output[-3000:]
    table = np.array([sample for sample in samples if None not in sample], np.float64)
    step, seconds, memory, files, threads = table[table[:, 0] > STEPS / 10].T
    growth = 1000 * np.polyfit(step, memory, 1)[0]
    speeds = np.diff(step) / np.diff(seconds)
    first, last = np.median(speeds[: len(speeds) // 4]), np.median(speeds[-len(speeds) // 4 :])
    print(
        f"{len(step)} samples: {np.median(memory) / 1e6:.0f} MB, {growth / 1e3:.1f} kB more in 1000 steps; "
        f"{files.min():.0f} to {files.max():.0f} open files, {threads.min():.0f} to {threads.max():.0f} threads; "
        f"{first:.1f} steps/s in the first quarter, {last:.1f} in the last"
    )
    assert growth < 100e3  # a leak of one 32x32 image a step would be 3 MB in 1000 steps
    half = len(step) // 2
    assert files[half:].max() <= files[:half].max() + 2
    assert threads[half:].max() <= threads[:half].max() + 2
    assert last > 0.8 * first
    assert len(steps(run)) <= 4
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert sum(file.stat().st_size for file in (run / "tensorboard").iterdir()) < 20e6
    assert (run / "metrics.jsonl").stat().st_size < 1000 * STEPS / 20


def read_step(run: Path) -> int:
    """The number of steps that a run has logged."""
    file = run / "metrics.jsonl"
    return 20 * file.read_text().count('"split": "train"') if file.exists() else 0


def read_use(pid: int) -> tuple[float | None, float | None, float | None]:
    """Memory in bytes, open files and threads of a process; None if it has ended."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return 1024 * int(fields["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])
    except (OSError, KeyError):
        return None, None, None
