"""The command line as a user has it: whole processes in a folder of their own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from xla_flags import FAST_COMPILE

STEPS = 10
SMALL = (
    "--model.backbone resnet18 --augment.crop 32 --batch-size 4 --steps 10 --eval-every 5 --checkpoint-every 5 "
    "--log-every 1 --data.val-split tiny"
)


@dataclass(frozen=True)
class Place:
    """A folder in which commands run, each a process with one device and one compilation cache for all.

    Attributes:
        root: the working directory; `data` in it is a small folder data set.
        xla_flags: options of XLA. The default saves time where compiling takes longer than running.
    """

    root: Path
    xla_flags: str = FAST_COMPILE

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return kept | {
            "JAX_PLATFORMS": "cpu",
            # FCN_TEST_XLA_FLAGS= runs them as a user's, with all optimization, in twice the time.
            "XLA_FLAGS": os.environ.get("FCN_TEST_XLA_FLAGS", self.xla_flags),
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *words: str | Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "fcn_jax", *map(str, words)],
            cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *words: str | Path, code: int = 0, minutes: float = 5) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=60 * minutes)
        assert process.returncode == code, output
        assert "Traceback" not in output
        return output

    def train_words(self, folder: str, *more: str) -> tuple[str, ...]:
        """The command that trains on the folder data set."""
        data = ("--data.name", "folder", "--data.dir", str(self.root / "data"))
        return ("train", "fcn8s", *data, *SMALL.split(), "--run-dir", folder, *more)


def draw_folder_data(folder: Path) -> None:
    """Draw a folder data set with 8 images to train on and 3 to score."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("tiny", 3)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            height, width = generator.integers(30, 50, 2)
            label = np.zeros((height, width), np.uint8)
            label[height // 3 :, : width // 2] = 1
            label[-2:] = 255
            image = np.where(label[..., None] == 1, 200, 60) + generator.integers(0, 50, (height, width, 3))
            Image.fromarray(image.astype(np.uint8)).save(folder / "images" / split / f"{split}{index}.png")
            Image.fromarray(label).save(folder / "labels" / split / f"{split}{index}.png")
    (folder / "classes.txt").write_text("ground\nthing\n")


def read_metrics(folder: Path) -> list[dict]:
    """What a run computed, whatever it waited for its input."""
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "input_wait"} for line in written]


def find_best(folder: Path) -> dict:
    """The scores of the best evaluation of a run."""
    return max((line for line in read_metrics(folder) if line["split"] == "val"), key=lambda line: line["mean_iu"])
