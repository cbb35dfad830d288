"""What a run directory says about a training without its data: configuration, versions, numbers, times and sizes."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fcn_jax.config import HEADS
from fcn_jax.data.tasks import count_classes
from fcn_jax.inference.report.times import Times, read_times
from fcn_jax.models.build import build, shape_variables
from fcn_jax.runs.checkpoint_files import find_best, list_complete
from fcn_jax.runs.metrics_log import read_log
from fcn_jax.runs.run_dir import Run, read_origin
from fcn_jax.runtime.json_values import parse_json

LARGEST = 1e30  # of a number in a file; arithmetic with larger ones overflows
PER_CLASS = ("per_class_iu", "per_class_accuracy")

Points = list[tuple[float, float]]


class Record(NamedTuple):
    """What a run directory says about a training.

    Attributes:
        train: the lines of the training in metrics.jsonl.
        val: the lines of the evaluations.
        steps: number of steps taken, as far as they are logged or saved.
        command: the command of its last start; None if it was not stored.
        machine: the accelerators or the processor of its last start; None if they were not stored.
        versions: versions of packages and of Python.
        git: the commit of the code, with "+" if the package differed from it; None if unknown.
        times: how long it took; None if unknown.
        parameters: number of parameters of the network.
        checkpoints: the steps that have a checkpoint, and the size of each in bytes.
    """

    train: Sequence[Mapping[str, Any]]
    val: Sequence[Mapping[str, Any]]
    steps: int
    command: str | None
    machine: str | None
    versions: Mapping[str, str]
    git: str | None
    times: Times | None
    parameters: int
    checkpoints: Mapping[int, int]

    @property
    def preset(self) -> str | None:
        """The preset that the command names; None if it was not stored, or the training was not started by one."""
        words = iter((self.command or "").split())
        return next(words, None) if "train" in words else None  # the word after "train"

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The line of the evaluation with the highest mean IU, of equal ones the last; None if there is none."""
        lines = {line["step"]: line for line in self.val if "mean_iu" in line}
        step = find_best(lines, {step: line["mean_iu"] for step, line in lines.items()})
        return None if step is None else lines[step]


def find_stages(folder: Path) -> list[Path]:
    """Return the run directories that a folder stands for: itself, or those of its stages after staged training."""
    stages = [folder / head for head in HEADS if (folder / head / "config.json").is_file()]
    return [folder] if (folder / "config.json").is_file() or not stages else stages


def read_record(run: Run) -> Record:
    """Read what a run recorded.

    Raises:
        InputError: its `config.json` cannot be understood.
    """
    origin = read_origin(run.folder)
    last = origin.starts[-1] if origin.starts else None
    stored = parse_json((run.folder / "config.json").read_text())
    lines = [line for line in map(_keep_numbers, read_log(run.folder)) if "step" in line]
    checkpoints = {}
    for step in list_complete(run.checkpoints):
        with contextlib.suppress(FileNotFoundError):  # a training that goes on has removed it
            checkpoints[step] = _measure(run.checkpoints / str(step))
    model = run.config.model
    channels = model.input_or_default.num_channels
    shapes = shape_variables(build(model, *count_classes(run.tasks)), channels)
    versions = stored.get("versions")
    return Record(
        train=[line for line in lines if line.get("split") == "train"],
        val=[line for line in lines if line.get("split") == "val"],
        steps=int(max([*(line["step"] for line in lines), *checkpoints], default=0)),
        command=last.command if last else None,
        machine=last.machine if last else None,
        versions={
            **({str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {}),
            **({"Python": origin.python} if origin.python else {}),
        },
        git=origin.git,
        times=read_times(run.folder),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])),
        checkpoints=checkpoints,
    )


def read_points(lines: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Return (step, value) for each line that has a value of this name."""
    return [(float(line["step"]), float(line[name])) for line in lines if name in line]


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a number that a chart can show."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _keep_numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what a file of somebody else may have in place of a number; keep split, lists and further tasks."""
    tasks = {name: _keep_metrics(value) for name, value in line.items() if isinstance(value, dict)}
    metrics = _keep_metrics(line)
    step = {"step": int(metrics["step"])} if "step" in metrics else {}
    return metrics | tasks | step | {"split": line.get("split")}


def _keep_metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: float(value) for name, value in line.items() if is_number(value) and name not in PER_CLASS}
    return numbers | {name: line[name] for name in PER_CLASS if isinstance(line.get(name), list)}


def _measure(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
