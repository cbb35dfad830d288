"""Run directories: configuration, metrics, scores, checksums, and the files of a checkpoint."""

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from faults.harness import Surface
from faults.mutations import damage, damage_json
from small_runs import CLASSES, PLAIN, config
from tensorboardX import SummaryWriter

from fcn_jax.config import RunOptions
from fcn_jax.inference.report.page import Report, format_duration, render_page
from fcn_jax.inference.report.record import read_record
from fcn_jax.inference.report.times import read_times
from fcn_jax.models.build import build, init_variables
from fcn_jax.models.fcn import FCN32s
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import MANIFEST, SCORES
from fcn_jax.runs.metrics_log import MetricsLog, is_logged
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.json_values import to_json

MODEL = FCN32s(num_classes=CLASSES, backbone=PLAIN)
PALETTE = np.zeros((CLASSES, 3), np.uint8)
STORED = {
    "config": to_json(config()),
    "options": to_json(RunOptions()),
    "class_names": ["sky", "sea", "sand"],
    "palette": PALETTE.tolist(),
    "label_map": {"void": [0], "numbers": [[7, 0], [8, 1]], "colours": [[[128, 0, 0], 2]]},
    "contents": "abc",
}
FORMER = {**STORED, "config": {"steps": 3, "batch_size": 8, "keep": 2, "eval_batch_size": 0, "data": {"dir": "x"}}}
del FORMER["options"]
LINES = [
    b'{"step": 1, "split": "train", "loss": 0.5}\n{"step": 2, "split": "val", "mean_iu": null}\n',
    b'{"step": 4, "split": "train"}\n{"st',
]
STARTS = [{"command": "fcn-jax train fcn8s", "machine": "m", "time": 1}]
STARTED = {**STORED, "starts": STARTS, "git": "abc", "versions": {"jax": "1.2"}, "python": "3.11"}
REPORTED_LINES = (
    b'{"step": 1, "split": "train", "loss": 0.5}\n'
    b'{"step": 2, "split": "val", "loss": 0.5, "mean_iu": 0.25, "per_class_iu": [0.5, 0.25, null]}\n'
)


@functools.cache
def save_checkpoint() -> Path:
    """Save a checkpoint of a network of three small convolutions, in a folder that is removed at the end."""
    folder = tempfile.TemporaryDirectory(prefix="fcn_jax-faults-")
    _FOLDERS.append(folder)
    with Checkpoints(Path(folder.name)) as checkpoints:
        checkpoints.save(1, {"variables": jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes())})
        checkpoints.note_score(1, 0.5)
    return Path(folder.name)


_FOLDERS: list[tempfile.TemporaryDirectory] = []


@functools.cache
def shapes() -> Any:
    """Describe the variables of the network, on one device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    tree = jax.eval_shape(lambda: init_variables(MODEL, 0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def open_stored(file: Path) -> None:
    """Open a run directory, and build its network, as every command does."""
    run = open_run(file.parent)
    build(run.config.model, len(run.class_names))


def read_metrics(file: Path) -> None:
    is_logged(file.parent, 2, "val")
    MetricsLog(file.parent, 1)


def report(file: Path) -> None:
    """Write the page of a run without checkpoints, of which one file is hostile."""
    if file.name != "config.json":
        (file.parent / "config.json").write_text(json.dumps(STORED))
    run = open_run(file.parent)
    render_page([Report("run", run, read_record(run))]).encode(errors="replace")


def read_events(file: Path) -> None:
    shutil.rmtree(file.parent / "tensorboard", ignore_errors=True)
    (file.parent / "tensorboard").mkdir()
    shutil.copy(file, file.parent / "tensorboard" / "events.out.tfevents.1")
    if times := read_times(file.parent):
        format_duration(times.total)


@functools.cache
def write_events() -> bytes:
    """Write what a training of three lines and an evaluation writes for TensorBoard."""
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as board:
            for step, tag in ((1, "train/loss"), (2, "train/loss"), (2, "val/loss"), (3, "train/loss")):
                board.add_scalar(tag, 0.5, step, walltime=100.0 * step)
        return next(Path(folder).iterdir()).read_bytes()


def read_scores(file: Path) -> None:
    with Checkpoints(file.parent, read_only=True) as checkpoints:
        checkpoints.best()


def restore(file: Path) -> None:
    """Restore a checkpoint without checksums, of which a file is hostile: its name is the first line of `file`."""
    shutil.rmtree(file.parent / "checkpoints", ignore_errors=True)
    shutil.copytree(save_checkpoint(), file.parent / "checkpoints")
    name, _, data = file.read_bytes().partition(b"\n")
    if name != f"1/{MANIFEST}".encode():
        (file.parent / "checkpoints" / "1" / MANIFEST).unlink()
    if name:
        (file.parent / "checkpoints" / name.decode()).write_bytes(data)
    with Checkpoints(file.parent / "checkpoints", read_only=True) as checkpoints:
        for step in checkpoints.steps():
            checkpoints.restore(step, {"variables": shapes()})


def damage_checkpoint(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Choose a file of the checkpoint, and damage it."""
    files = sorted(file for file in save_checkpoint().rglob("*") if file.is_file())
    file = rng.choice(files)
    hostile = (damage_json if file.suffix == ".json" else damage)(
        file.read_bytes(), rng, [f.read_bytes() for f in files]
    )
    return str(file.relative_to(save_checkpoint())).encode() + b"\n" + hostile


SURFACES = [
    Surface("config.json of a run", [json.dumps(stored).encode() for stored in (STORED, FORMER)], open_stored,
            damage_json, "config.json", 2),
    Surface("metrics.jsonl of a run", LINES, read_metrics, damage_json, "metrics.jsonl", 0.7),
    Surface("metrics.jsonl of a run to report", [REPORTED_LINES], report, damage_json, "metrics.jsonl", 0.05),
    Surface("config.json of a run to report", [json.dumps(STARTED).encode()], report, damage_json, "config.json", 0.05),
    Surface("TensorBoard's file of a run", [write_events()], read_events, damage, "events", 0.3),
    Surface("scores.json of a run", [b'{"1": 0.5, "2": null}', b"{}"], read_scores, damage_json, SCORES, 0.3),
    Surface("files of a checkpoint", [b""], restore, damage_checkpoint, "damage", 0.3),
]  # fmt: skip
