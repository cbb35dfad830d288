"""A run directory: `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`."""

import contextlib
import dataclasses
import json
import platform
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from fcn_jax.config import HEADS, Config, DataOptions, RunOptions
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import Task, describe_classes, is_same
from fcn_jax.errors import InputError
from fcn_jax.runs.checkpoint_files import find_latest_step
from fcn_jax.runs.differences import advise_extension, list_changes
from fcn_jax.runtime.files import try_lock, write_atomically
from fcn_jax.runtime.json_values import from_json, parse_json, to_json
from fcn_jax.runtime.machine import name_machine
from fcn_jax.runtime.versions import read_versions

FORMAT = 2  # of `config.json`; increased when the meaning of a stored value changes
# What is in a folder whose first start was ended before it had written the configuration.
BEGUN = {"lock", "config.json.tmp"}


class Run(NamedTuple):
    """A run directory with the contents of its `config.json`.

    Attributes:
        folder: the run directory.
        config: the values that decide its numbers, all of them set.
        options: the conduct of its last start, with every interval set.
        tasks: the tasks of its data set, with their classes.
        contents: a hash of the names and sizes in its data set.
    """

    folder: Path
    config: Config
    options: RunOptions
    tasks: tuple[Task, ...]
    contents: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the first task."""
        return self.tasks[0].class_names

    @property
    def palette(self) -> UInt8[np.ndarray, "classes 3"]:
        """The colour of each class of the first task, RGB."""
        return self.tasks[0].palette

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"


@dataclasses.dataclass(frozen=True)
class Start:
    """A start of a training.

    Attributes:
        command: its command, with the paths that were given.
        machine: the accelerators or the processor.
        time: seconds since 1970.
        id: what no other start has; empty in runs of older versions.
    """

    command: str
    machine: str
    time: int
    id: str = ""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a run comes from; runs of older versions have no starts.

    Attributes:
        git: the commit of the code at the last start; None: not known.
        python: the version of Python at the last start.
        starts: the starts, the first one first.
    """

    git: str | None = None
    python: str | None = None
    starts: tuple[Start, ...] = ()


def open_run(folder: Path) -> Run:
    """Read a run directory.

    Raises:
        InputError: `folder` is not a run directory, or its `config.json` cannot be understood.
    """
    file = folder / "config.json"
    if not file.is_file():
        if stages := [head for head in HEADS if (folder / head / "config.json").is_file()]:
            raise InputError(f"{folder} has the stages of a staged training; give one, as {folder / stages[-1]}")
        raise InputError(f"{folder} is not a run directory: it has no config.json; give what `train --run-dir` made")
    try:
        stored = parse_json(file.read_text())
        if "options" not in stored:
            stored |= _split_former(stored["config"])
        if "format" not in stored:
            _rename_former(stored["config"].get("model", {}))
        config = fill_config(from_json(Config, stored["config"]))  # an older version may not have stored every value
        options = fill_options(from_json(RunOptions, stored["options"]), config)
        others = stored.get("other_tasks", {})
        tasks = [(stored.get("task", ""), stored), *others.items()]
        contents = from_json(str, stored["contents"], "contents")
        return Run(folder, config, options, tuple(_read_task(*task) for task in tasks), contents)
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{file} is not the configuration of a run ({error!r}); restore it or start a new run"
        ) from error


def _read_task(name: Any, stored: Any) -> Task:
    """Read a task from what `config.json` stores of it."""
    class_names = from_json(tuple[str, ...], stored["class_names"], "class_names")
    palette = np.array(from_json(tuple[tuple[int, int, int], ...], stored["palette"], "palette"), np.uint8)
    if not 0 < len(class_names) == len(palette) <= IGNORE:
        raise ValueError(f"it has {len(class_names)} class names and {len(palette)} colours")
    if not re.fullmatch(r"[\w-]*", from_json(str, name, "task")):  # it becomes a part of the names of files
        raise ValueError(f"it has the task {name!r}, and names of tasks have letters, digits, - and _")
    label_map = from_json(LabelMap | None, stored.get("label_map"), "label_map")  # older versions did not store it
    if label_map is not None:
        numbers = [*label_map.void, *(number for number, _ in label_map.numbers)]
        labels = [label for _, label in (*label_map.numbers, *label_map.colours)]
        if not set(numbers) <= set(range(1 << 16)) or not set(labels) <= {*range(len(class_names)), IGNORE}:
            raise ValueError("its label map has numbers outside 0..65535 or labels that are no classes")
    return Task(name, class_names, palette, label_map)


@contextlib.contextmanager
def open_for_training(
    folder: Path,
    config: Config,
    options: RunOptions,
    dataset: Dataset,
    start: Start | None = None,
    finished: bool = False,
) -> Iterator[Run]:
    """Make a run directory, or open an existing one to resume it, and lock it against other trainings.

    The system frees the lock of a process that is killed. With several hosts the first one holds the lock for all.

    Args:
        folder: the run directory.
        config: configuration with every value set (`fill_config`).
        options: options with every interval set (`fill_options`).
        dataset: the data to train on.
        start: this start, which is noted; None: it is described here.
        finished: whether there is nothing left to train; then the record of what trained it stays as it is.

    Raises:
        InputError: the run there has another configuration, other classes or another split to evaluate on (the
            difference is shown); the folder is not a run directory or cannot become one; or another process trains in
            it.
    """
    if (folder / "config.json").exists():
        _require_same(open_run(folder), config, options, dataset)
    elif jax.process_index() == 0 and folder.is_dir() and {file.name for file in folder.iterdir()} - BEGUN:
        raise InputError(f"{folder} holds files but is not a run directory; give a new or an empty --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a run directory ({error}); give another --run-dir") from error
    run = Run(folder, config, options, dataset.tasks, dataset.contents)
    if jax.process_index() != 0:
        yield run
        return
    with lock_run(folder):
        if finished and open_run(folder).config == config:  # else an extension is taken back
            yield run
            return
        starts = read_origin(folder).starts if (folder / "config.json").exists() else ()
        described = _describe_run(run) | {"starts": to_json((*starts, start or describe_start()))}
        write_atomically(folder / "config.json", json.dumps(described, indent=2) + "\n")
        yield run


def read_origin(folder: Path) -> Origin:
    """Read where a run comes from.

    Args:
        folder: a run directory that `open_run` can read.

    Raises:
        InputError: its `config.json` cannot be understood.
    """
    try:
        stored = parse_json((folder / "config.json").read_text())
        return from_json(Origin, {name: stored[name] for name in vars(Origin()) if name in stored})
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / 'config.json'} does not say how the run was started ({error!r}); restore it"
        ) from error


def require_last_start(folder: Path, start: Start) -> None:
    """Check that no other training has started in a run directory since.

    A lock keeps others out, but on some network disks the locks of one host mean nothing to another one. There the
    training that has started first ends before its next save.

    Args:
        folder: the run directory.
        start: the start that `open_for_training` has noted there.

    Raises:
        InputError: another start was noted after it.
    """
    try:
        starts = read_origin(folder).starts
    except InputError:  # of a disk that does not answer; a save tells of that
        return
    if starts and starts[-1].id != start.id:
        raise InputError(
            f"another training has started in {folder} since, on {starts[-1].machine}, so this one ends. What it has "
            "done since its last checkpoint is not kept; wait for the other one, or give another --run-dir"
        )


def lock_run(run_dir: Path) -> contextlib.AbstractContextManager[bool]:
    """Lock a run directory against other trainings. The system frees the lock of a process that is killed.

    Raises:
        InputError: another process trains in it.
    """
    return try_lock(run_dir / "lock", f"another process trains in {run_dir}; wait for it, or give another --run-dir")


def require_shared(folder: Path) -> None:
    """Check that this host sees the run directory that the first one has opened.

    Raises:
        InputError: it does not, so the folder is not on a disk that the hosts share.
    """
    for _ in range(20):  # a network disk may show a new file after some seconds
        if (folder / "config.json").exists():
            return
        time.sleep(1)
    raise InputError(
        f"{folder} is not the folder that process 0 writes to; give a --run-dir on a disk that all hosts share"
    )


def _require_same(run: Run, config: Config, options: RunOptions, dataset: Dataset) -> None:
    taken = find_latest_step(run.folder) or 0
    changes = list_changes(run.config, config, taken)
    splits = (run.options.data.val_split, options.data.val_split)
    if splits[0] != splits[1]:  # the best checkpoint would be chosen by scores of both
        changes.append(
            f"data.val_split: {splits[0]} -> {splits[1]} (`fcn-jax eval {run.folder} --split {splits[1]}` scores that)"
        )
    if not is_same(run.tasks, dataset.tasks):
        changes.append(f"classes: {describe_classes(run.tasks)} -> {describe_classes(dataset.tasks)}")
    elif run.contents != dataset.contents:
        changes.append("data: its images or labels, by name and size, are not those the run was started with")
    if changes:
        listing = "\n  ".join(changes)
        raise InputError(
            f"{run.folder} holds a run with another configuration:\n  {listing}\n"
            "a resumed run must equal an undisturbed one; give the same flags, or another --run-dir"
            f"{advise_extension(run.config, config, taken)}"
        )


def _describe_run(run: Run) -> dict[str, Any]:
    """Describe a run as the contents of `config.json`. The first task has the keys that a single one has."""
    first, *others = run.tasks
    several = {"task": first.name, "other_tasks": {task.name: _describe_task(task) for task in others}}
    return {
        "config": to_json(run.config),
        "options": to_json(run.options),
        **_describe_task(first),
        **(several if others else {}),
        "contents": run.contents,
        "versions": read_versions(),
        "python": platform.python_version(),
        "git": _read_git_hash(),
        "format": FORMAT,
    }


def _describe_task(task: Task) -> dict[str, Any]:
    return {
        "class_names": list(task.class_names),
        "palette": task.palette.tolist(),
        "label_map": to_json(task.label_map),
    }


def describe_start() -> Start:
    """Describe the start of this process, each time with another id."""
    program, *words = sys.argv
    name = Path(program).name
    command = shlex.join(["fcn-jax" if name == "__main__.py" else name, *words])
    return Start(command, name_machine(), round(time.time()), uuid.uuid4().hex)


def _split_former(stored: dict[str, Any]) -> dict[str, Any]:
    """Split a stored configuration of the former form, which held `RunOptions` too, and 0 for values left open."""

    def names(kind: type) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)} - {"data"}

    options = {name: value for name, value in stored.items() if name in names(RunOptions)}
    options["eval_batch_size"] = options.get("eval_batch_size") or None
    options["data"] = {name: value for name, value in stored["data"].items() if name in names(DataOptions)}
    config = {name: value for name, value in stored.items() if name not in options or name == "data"}
    config["data"] = {name: value for name, value in stored["data"].items() if name not in options["data"]}
    return {"config": config, "options": options}


def _rename_former(model: dict[str, Any]) -> None:
    """Give a model that was stored without a format the values by which the same network goes today."""
    if model.get("head") == "dilated" and model.get("output_stride") == 16:
        model["output_stride"] = 32  # 16 had no effect
    if model.get("backbone", "").startswith("googlenet"):
        model["padding"] = "reference"  # there was no other


def _read_git_hash() -> str | None:
    """Read the commit of this code, with "+" if the package differs from it; return None outside a repository."""
    package = Path(__file__).parents[1]

    def ask(*words: str) -> str:
        return subprocess.run(["git", "-C", package, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # the package may be installed within another repository
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
