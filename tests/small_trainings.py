"""Trainings of a dozen steps by the command line, on data written here, and what they leave."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

STEPS = 12


def write_data(folder: Path) -> Path:
    """Writes ten images to train on and three to score, so that neither is a multiple of the number of processes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3)):
        for index in range(count):
            for kind, shape in (("images", (30, 30 + index, 3)), ("labels", (30, 30 + index))):
                values = rng.integers(0, 256 if kind == "images" else 3, shape, np.uint8)
                file = folder / kind / split / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(file)
    (folder / "classes.txt").write_text("sky\nsea\nsand\n")
    return folder


def words(data: Path, run: Path, *more: object) -> list[str]:
    """The words of a training, to which the batch of any number of processes up to eight fits."""
    flags = f"--data.name folder --data.dir {data} --data.cache {data / 'cache'} --augment.crop 32 --batch-size 8"
    conduct = f"--steps {STEPS} --log-every 1 --eval-every 4 --keep 9 --run-dir {run}"
    return ["train", "fcn8s", *flags.split(), *conduct.split(), *map(str, more)]


def read(run: Path) -> list[dict]:
    """The lines of a run without what a clock measured."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("input_wait", "seconds", "images_per_second")
    return [{name: value for name, value in line.items() if name not in clocks} for line in lines]


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints of a run, in order."""
    return sorted(int(folder.name) for folder in (run / "checkpoints").iterdir() if folder.name.isdigit())
