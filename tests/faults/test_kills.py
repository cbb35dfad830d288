"""A run that is killed again and again at random moments ends as an undisturbed one, bit for bit."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_arrays import read_arrays
from processes import both_end_well, end_all, start
from small_trainings import read, write_data

KILLS = 50
STEPS = 1000


def words(data: Path, cache: Path, run: Path) -> list[str]:
    flags = f"--data.name folder --data.dir {data} --data.cache {cache} --augment.crop 32 --batch-size 8"
    conduct = f"--steps {STEPS} --log-every 5 --eval-every 30 --checkpoint-every 5 --run-dir {run}"
    return ["train", "fcn8s", *flags.split(), *conduct.split()]


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    """They come while data are prepared, programs compiled, steps taken, states saved and images scored."""
    data = write_data(tmp_path / "data")
    both_end_well([start(words(data, tmp_path / "cache", tmp_path / "whole"))], 600)
    chance, found = random.Random(0), {"preparing": 0, "before the first step": 0, "in the run": 0}
    run, cache = tmp_path / "killed", tmp_path / "other-cache"
    for number in range(KILLS):
        if number % 5 == 0:
            for info in list(cache.glob("**/dataset_info.json")):
                shutil.rmtree(info.parent)  # prepared data; programs stay
        process = start(words(data, cache, run))
        before = count_lines(run)
        time.sleep(chance.uniform(1, 8))
        process.kill()
        ((status, output),) = end_all([process], 60)
        assert status == -signal.SIGKILL, output
        assert not find_processes(run)
        if not list(cache.glob("**/dataset_info.json")):
            where = "preparing"
        else:
            where = "before the first step" if count_lines(run) == before else "in the run"
        found[where] += 1
    print(f"{KILLS} kills: {', '.join(f'{count} {where}' for where, count in found.items())}")
    assert min(found.values()) > 0, found
    assert last_step(run) < STEPS, "the run was over before the last kill"
    both_end_well([start(words(data, cache, run))], 600)
    assert read(run) == read(tmp_path / "whole")
    arrays, others = read_arrays(run, STEPS), read_arrays(tmp_path / "whole", STEPS)
    assert arrays.keys() == others.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def count_lines(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def last_step(run: Path) -> int:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(line["step"] for line in lines)


def find_processes(run: Path) -> list[str]:
    """The processes whose command line has the folder of a run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(run) in text:
            found.append(text)
    return found
