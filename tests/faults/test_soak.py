"""A training of 20,000 steps needs no more memory, descriptors, disk or time at its end than at its beginning."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from processes import end_all, start
from small_trainings import steps, write_data

STEPS = 20_000
SAVES = 400
KEEP = 2
# TensorStore 0.1.86, which Orbax writes with, keeps a part of what it counts at each save (its metrics). So memory
# that grows by step and memory that grows by save have bounds of their own.
PER_1000_STEPS = 0.5  # MB
PER_SAVE = 0.2  # MB


class Sample(NamedTuple):
    """What a process has at a moment.

    `step` is the last it has logged, `memory` in MB, `seconds` the processors' time, which other load does not change.
    """

    step: int
    memory: float
    seconds: float
    descriptors: int
    threads: int


@pytest.mark.slow
def test_twenty_thousand_steps(tmp_path):
    # What an evaluation and a save take belongs to the other test: one of each, after the last step.
    samples = train(tmp_path, STEPS, f"--log-every 50 --eval-every {STEPS} --checkpoint-every {STEPS}")
    late = [sample for sample in samples if STEPS // 10 <= sample.step < STEPS]  # the first steps fill caches and pools
    slope = 1000 * find_slope(late)
    quarters = [[s for s in samples if number <= 4 * s.step / STEPS < number + 1] for number in (1, 3)]
    second, last = (1000 * (part[-1].seconds - part[0].seconds) / (part[-1].step - part[0].step) for part in quarters)
    events = sum(file.stat().st_size for file in (tmp_path / "run" / "tensorboard").rglob("*"))
    print(
        f"{STEPS} steps: {slope:+.3f} MB per 1000 steps ({late[0].memory:.0f} to {late[-1].memory:.0f} MB), "
        f"{second:.1f} and {last:.1f} ms of processors per step in "
        f"the second and the last quarter, {events / 1e6:.2f} MB of TensorBoard"
    )
    assert slope < PER_1000_STEPS
    assert_flat(late)
    assert last < 1.2 * second
    assert len(read_lines(tmp_path / "run")) == STEPS // 50 + 1
    assert events < 400 * STEPS // 50 + (1 << 20)  # what is logged, and the pictures of an evaluation
    assert_rotated(tmp_path / "run")


@pytest.mark.slow
def test_many_saves(tmp_path):
    samples = train(tmp_path, SAVES, f"--log-every 10 --eval-every {SAVES} --checkpoint-every 1")
    late = [sample for sample in samples if sample.step >= SAVES // 4]
    slope = find_slope(late)
    print(f"{SAVES} saves: {slope:+.3f} MB per save ({late[0].memory:.0f} to {late[-1].memory:.0f} MB)")
    assert slope < PER_SAVE
    assert_flat(late)
    assert_rotated(tmp_path / "run")


def train(folder: Path, count: int, conduct: str) -> list[Sample]:
    """Trains in a process, and looks at it four times a second."""
    data = write_data(folder / "data")
    flags = f"--data.name folder --data.dir {data} --data.cache {folder / 'cache'} --augment.crop 32 --batch-size 2"
    run = folder / "run"
    words = f"train fcn8s {flags} --steps {count} --keep {KEEP} {conduct} --run-dir {run}"
    process, samples = start(words.split()), []
    while process.poll() is None:
        time.sleep(0.25)
        lines = read_lines(run)
        if lines and (sample := look_at(process.pid, lines[-1]["step"])):
            samples.append(sample)
    ((status, output),) = end_all([process], 60)
    assert status == 0, output
    assert len(samples) > 40, "the training was over before it could be watched"
    return samples


def look_at(pid: int, step: int) -> Sample | None:
    """Reads what Linux tells of a process; None if it has just ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        seconds = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        memory = int(status["RssAnon"].split()[0]) / 1024
        return Sample(step, memory, seconds / os.sysconf("SC_CLK_TCK"), descriptors, int(status["Threads"]))
    except (OSError, KeyError):
        return None


def read_lines(run: Path) -> list[dict]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []


def find_slope(samples: list[Sample]) -> float:
    """Fits a line to the memory by step; returns MB per step. Theil and Sen's form: single peaks do not count."""
    thinned = samples[:: max(1, len(samples) // 200)]
    step, memory = (np.array([getattr(sample, name) for sample in thinned], float) for name in ("step", "memory"))
    rise, run = memory[:, None] - memory, step[:, None] - step
    return float(np.median(rise[run > 0] / run[run > 0]))


def assert_flat(samples: list[Sample]) -> None:
    """Compares the most descriptors and threads at once in the first and in the last third."""
    third = len(samples) // 3
    for name in ("descriptors", "threads"):
        first, last = (max(getattr(sample, name) for sample in part) for part in (samples[:third], samples[-third:]))
        print(f"at most {first} {name} in the first third, {last} in the last")
        assert last <= first + 4, name


def assert_rotated(run: Path) -> None:
    assert len(steps(run)) <= KEEP + 1  # the latest, and the best
    assert not [file for file in (run / "checkpoints").iterdir() if "tmp" in file.name]
