"""CamVid's preset as a user trains it: `python benchmarks/camvid.py --data FOLDER --weights FILE [--quick]`.

Runs `fcn-jax train camvid-quick` and records its last score and its time. If `--seconds` are fewer than it may need,
there are fewer steps in proportion. A run that takes longer is stopped, and the last score before counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import history
from markdown_table import head, row

from fcn_jax.presets import PRESETS

PRESET = "camvid-quick"
ENOUGH = 100  # seconds that all steps and scores are assumed to need on a GPU; not measured yet
STOPPING = 10  # seconds for the last checkpoint of a run that is stopped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("--weights", type=Path, required=True, help="file of the weights to start from")
    parser.add_argument("--seconds", type=int, help="time for the whole run; default: no limit")
    parser.add_argument("--quick", action="store_true", help="two steps on the first images")
    history.add_argument(parser)
    options = parser.parse_args()
    steps = PRESETS[PRESET].config.steps
    if options.quick:
        steps = 2
    elif options.seconds:
        steps = min(steps, max(1, steps * options.seconds // ENOUGH))
    recorder = history.Recorder("whole_program", options.quick, options.history)
    print(f"{recorder.describe()}\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = take_first(options.data, folder / "data", 8) if options.quick else options.data
        began = time.perf_counter()
        scores = train(data, options.weights, steps, folder, options.seconds)
        seconds = time.perf_counter() - began
    if not scores:
        sys.exit(f"camvid.py: the run was stopped after {seconds:.0f} s, before its first score")
    last = scores[-1]
    note = "" if last["step"] == steps else f"stopped: the score is that of step {last['step']}"
    setting = f"CamVid, {PRESET}, {steps} steps, seed 0" + (f", {note}" if note else "")
    print("\n" + head("run", "what", "figure"))
    for task, value, unit in (
        ("val mean IU", last["mean_iu"], ""),
        ("val pixel accuracy", last["pixel_accuracy"], ""),
        ("time, compilations included", seconds, "s"),
    ):
        added = recorder.add(task, setting, unit, [value])
        print(row(setting, task, f"{added.ours:.4g} {unit}".strip()), flush=True)


def train(data: Path, weights: Path, steps: int, folder: Path, seconds: int | None) -> list[dict]:
    """Train, and stop in time; return the scores of the val split.

    Raises:
        SystemExit: the training failed.
    """
    run = folder / "run"
    command = [sys.executable, "-m", "fcn_jax", "train", PRESET, "--run-dir", str(run), "--steps", str(steps)]
    command += ["--data.dir", str(data), "--model.weights", str(weights), "--data.cache", str(folder / "cache")]
    command += ["--data.decoded", "device", "--workers", str(os.cpu_count() or 1)]
    process = subprocess.Popen(command)
    try:
        status = process.wait(max(1, seconds - STOPPING) if seconds else None)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        status = 0
    if status:
        sys.exit(f"camvid.py: the training ended with {status}")
    metrics = run / "metrics.jsonl"
    lines = map(json.loads, metrics.read_text().splitlines()) if metrics.exists() else ()
    return [line for line in lines if line["split"] == "val"]


def take_first(data: Path, folder: Path, count: int) -> Path:
    """Link the first images and labels of the splits train and val in a folder."""
    for kind in ("images/train", "images/val", "labels/train", "labels/val"):
        (folder / kind).mkdir(parents=True)
        for file in sorted((data / kind).iterdir())[:count]:
            (folder / kind / file.name).symlink_to(file.resolve())
    return folder


if __name__ == "__main__":
    main()
