"""The record of a run's numbers: `metrics.jsonl` and TensorBoard."""

import contextlib
import functools
import json
import math
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import UInt8

from fcn_jax.errors import WriteFailed
from fcn_jax.runtime.files import write_atomically
from fcn_jax.runtime.json_values import flatten, parse_json, to_json

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


def is_logged(folder: Path, step: int, split: str) -> bool:
    """Return whether a run has logged a split after a step.

    Args:
        folder: the run directory.
        step: number of steps taken.
        split: "train" or "val".
    """
    return any((line["step"], line.get("split")) == (step, split) for line in read_log(folder))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's `metrics.jsonl` in order, without one that a killed process has cut short."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return [parse_json(line) for line in lines if _read_step(line) < math.inf]


def find_scores(folder: Path, step: int) -> dict[str, Any] | None:
    """Find the scores on the val split after a step in a run's log; None if there are none.

    Args:
        folder: the run directory.
        step: number of steps taken.
    """
    scored = [line for line in read_log(folder) if (line["step"], line.get("split")) == (step, "val")]
    return scored[-1] if scored else None


class MetricsLog:
    """Log of a run in `metrics.jsonl` and TensorBoard. Use it in a `with` statement: leaving it closes TensorBoard.

    Opening it removes what a killed run wrote after the step that it resumes from. With several hosts only the first
    one writes.
    """

    def __init__(self, folder: Path, first_step: int):
        """Open the record of a run.

        Args:
            folder: the run directory.
            first_step: number of steps that the run has taken before.
        """
        self._folder, self._first, self._has_warned = folder, first_step, False
        self._file = folder / "metrics.jsonl"
        if jax.process_index() != 0:
            return
        if self._file.exists():
            lines = self._file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _read_step(line) <= first_step]
            write_atomically(self._file, "".join(line + "\n" for line in kept))

    def __enter__(self) -> "MetricsLog":
        self._hook = threading.excepthook
        threading.excepthook = self._explain
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if "_board" in vars(self) and not self._has_warned:
                self._board.close()
        except OSError as error:
            self._warn_of_board(error)
        if not self._has_warned:
            threading.excepthook = self._hook
        elif "_board" in vars(self):
            # It would be closed once more at the end of the process. Its thread may fail, too, so the hook stays.
            self._board.file_writer.event_writer.close = lambda: None  # pyright: ignore

    def add(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Write one line, synchronised with the disk, and its scalars to TensorBoard.

        Raises:
            WriteFailed: the line cannot be written.
        """
        if jax.process_index() != 0:
            return
        line = json.dumps(to_json({"step": step, "split": split, **values}), allow_nan=False)
        try:
            with self._file.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteFailed(
                f"{self._file} cannot be written ({error.strerror}); mend that, then the same command goes on from the "
                "last checkpoint"
            ) from error
        if self._has_warned:
            return
        for name, value in flatten(dict(values)).items():  # further tasks have their values under their names
            if np.ndim(value) == 0 and math.isfinite(value):
                self._board.add_scalar(f"{split}/{name.replace('.', '/')}", float(value), step)

    def add_picture(self, step: int, name: str, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """Show a picture in TensorBoard."""
        if jax.process_index() == 0 and not self._has_warned:
            self._board.add_image(name, image, step, dataformats="HWC")

    def _explain(self, failed: threading.ExceptHookArgs) -> None:
        thread: Any = failed.thread
        if isinstance(failed.exc_value, OSError) and "tensorboardX" in type(thread).__module__:
            self._warn_of_board(failed.exc_value)
            # Nobody takes values from its queue any more: whoever waits for room in it would wait for ever.
            with contextlib.suppress(queue.Empty, OSError, ValueError):  # the process may close it meanwhile
                while True:
                    thread._queue.get(timeout=1)
        else:
            self._hook(failed)

    def _warn_of_board(self, error: OSError) -> None:
        """Say once, in one line, that TensorBoard's file cannot be written. Its numbers are in metrics.jsonl, too."""
        if not self._has_warned:
            print(f"warning: TensorBoard's file cannot be written ({error.strerror or error})", file=sys.stderr)
        self._has_warned = True

    @functools.cached_property
    def _board(self) -> "SummaryWriter":
        # The import takes seconds where PyTorch is installed, so it waits until the first line.
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._first + 1, flush_secs=10)


def _read_step(line: str) -> float:
    """Read the step of a line; return infinity for a line that a killed process has cut short."""
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf
