"""A run directory: `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`."""

import contextlib
import fcntl
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from fcn_jax import config as configs
from fcn_jax.config import Config
from fcn_jax.data.dataset import Dataset
from fcn_jax.errors import InputError

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


class Run(NamedTuple):
    """What `config.json` says of a run.

    Attributes:
        folder: the run directory.
        config: the resolved configuration it was started with.
        class_names: of the data it was trained on.
        palette: their colours, RGB.
        contents: a hash of that data.
    """

    folder: Path
    config: Config
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "classes 3"]
    contents: str

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"


def write_whole(file: Path, text: str) -> None:
    """Writes under a temporary name and renames, so that nobody ever reads half a file."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(file)


def open_run(folder: Path) -> Run:
    """Reads a run directory.

    Raises:
        InputError: `folder` is not one, or its `config.json` cannot be understood.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder} is not a run directory: it has no config.json; give what `train --run-dir` made")
    try:
        stored = json.loads(file.read_text())
        return Run(
            folder,
            configs.from_json(Config, stored["config"]).resolved(),  # what an older version did not store
            tuple(stored["class_names"]),
            np.array(stored["palette"], np.uint8),
            stored["contents"],
        )
    except (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{file} is not the configuration of a run ({error!r}); restore it or start a new run"
        ) from error


def start_or_resume(folder: Path, config: Config, dataset: Dataset) -> Run:
    """Makes a run directory, or opens the one that is there to go on with it.

    Raises:
        InputError: what is there was trained with another configuration or other classes (the difference is shown),
            or is not a run directory, or none can be made there, or another process trains there.
    """
    if (folder / "config.json").exists():
        old = open_run(folder)
        changes = configs.differences(old.config, config)
        if old.class_names != dataset.class_names:
            changes.append(f"classes: {', '.join(old.class_names)} -> {', '.join(dataset.class_names)}")
        elif old.contents != dataset.contents:
            changes.append("data: its images or labels, by name and size, are not those the run was started with")
        if changes:
            listing = "\n  ".join(changes)
            raise InputError(
                f"{folder} holds a run with another configuration:\n  {listing}\n"
                "a resumed run must equal an undisturbed one; give the same flags, or another --run-dir"
            )
    elif jax.process_index() == 0 and folder.is_dir() and any(file.name != "lock" for file in folder.iterdir()):
        raise InputError(f"{folder} holds files but is not a run directory; give a new or an empty --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a run directory ({error}); give another --run-dir") from error
    stored = {
        "config": configs.to_json(config),
        "class_names": list(dataset.class_names),
        "palette": dataset.palette.tolist(),
        "contents": dataset.contents,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "git": _git_hash(),
    }
    if jax.process_index() == 0:
        with alone(folder):  # the file of a run that another process trains is not touched
            write_whole(folder / "config.json", json.dumps(stored, indent=2) + "\n")
    return Run(folder, config, dataset.class_names, dataset.palette, dataset.contents)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second training out of a run directory; the lock of a process that is killed is free again.

    Raises:
        InputError: another process trains there.
    """
    if jax.process_index() != 0:  # of several hosts the first holds it for all
        yield
        return
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process trains in {folder}; wait for it, or give another --run-dir") from error
        except OSError:
            pass  # a file system without locks
        yield


class Records:
    """Appends to `metrics.jsonl` and TensorBoard, from a given step on: what a lost run wrote after it is cut off.

    TensorBoard is told of the cut, and its files are made, with the first line. Of several hosts the first writes, the
    others do nothing.
    """

    def __init__(self, folder: Path, first_step: int):
        self._folder, self._first = folder, first_step
        self._file = folder / "metrics.jsonl"
        if jax.process_index() != 0:
            return
        if self._file.exists():
            lines = self._file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= first_step]
            write_whole(self._file, "".join(line + "\n" for line in kept))

    @functools.cached_property
    def _board(self) -> "SummaryWriter":
        from tensorboardX import SummaryWriter  # takes seconds where PyTorch is installed, so not before the first step

        return SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._first + 1, flush_secs=10)

    def add(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes one line, on the disk when this returns, and the scalars of it."""
        if jax.process_index() != 0:
            return
        line = json.dumps(to_plain({"step": step, "split": split, **values}), allow_nan=False)
        with self._file.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in values.items():
            if np.ndim(value) == 0 and math.isfinite(value):
                self._board.add_scalar(f"{split}/{name}", float(value), step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """Shows a picture in TensorBoard."""
        if jax.process_index() == 0:
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what TensorBoard still holds."""
        if "_board" in vars(self):
            self._board.close()


def to_plain(value: Any) -> Any:
    """JSON values of nested mappings, sequences and NumPy values; what is not a number becomes null."""
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> float:
    """The step of a line; a line cut short by a kill belongs to no step that counts."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _git_hash() -> str | None:
    """The commit of the source this runs from, with "+" when it was changed; None outside a repository."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
