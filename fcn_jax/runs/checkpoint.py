"""Checkpoints of a run: Orbax, asynchronous, the latest N and the best by val mean IU, each with its checksums."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from fcn_jax.errors import InputError
from fcn_jax.runs.run_dir import write_whole

MANIFEST = "sha256.json"
BEST_BY = "mean_iu"

# Orbax warns of what is meant here: checkpoints between evaluations have no score, and some folders are only read.
INTENDED = ("tracked_metric", "read_only", "read only")
logging.getLogger("absl").addFilter(lambda record: not any(words in record.getMessage() for words in INTENDED))


class Checkpoints:
    """The checkpoints in a folder, by step. Use it in a `with` statement: leaving it waits for the last save."""

    def __init__(self, folder: Path, keep: int = 2, read_only: bool = False):
        """Opens a folder of checkpoints.

        Args:
            folder: made if it is not there.
            keep: latest checkpoints to keep, besides the best.
            read_only: changes nothing, so it may look on while another process trains; else what a killed process
                left half-saved is removed.

        Raises:
            InputError: the notes of a checkpoint cannot be read.
        """
        self._folder, self._read_only = folder.absolute(), read_only
        latest = preservation_policy.LatestN(keep)
        best = preservation_policy.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            best_fn=_score,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except (ValueError, KeyError) as error:
            for step in self._complete():
                self._verify(step)
            raise InputError(
                f"the metrics of a checkpoint in {self._folder} cannot be read ({error!r}); "
                "delete the last step's folder to use the one before it"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that are there, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The last step saved; None where there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best val mean IU; the last one where none was evaluated."""
        best = self._manager.best_step()
        return self.latest() if best is None else best

    def save(self, step: int, items: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Saves trees of arrays by name in the background; `metrics` are those of the val split at this step."""
        self._finish()
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._manager.save(
            step, args=ocp.args.Composite(**arguments), metrics=None if metrics is None else dict(metrics)
        )

    def restore(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Reads the named trees of a step.

        Args:
            step: one that is there.
            like: for each name a tree of `jax.ShapeDtypeStruct` with the sharding it shall have.

        Raises:
            InputError: a file of it has changed or is gone since it was written, or its arrays do not fit `like`.
        """
        self._verify(step)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise InputError(
                f"checkpoint {self._folder / str(step)} does not fit the model of its run: {error}; "
                f"was it made by another version? Delete it to use the one before"
            ) from error
        return {name: restored[name] for name in like}

    def _finish(self) -> None:
        """Waits for the save under way and notes its checksums: Orbax restores a flipped bit without complaint."""
        self._manager.wait_until_finished()
        if jax.process_index() != 0 or self._read_only:
            return
        for step in self._complete():
            folder = self._folder / str(step)
            if not (folder / MANIFEST).exists():
                write_whole(folder / MANIFEST, json.dumps(_checksums(folder), indent=1))

    def _complete(self) -> list[int]:
        """The steps whose folders have their final names."""
        return sorted(int(folder.name) for folder in self._folder.iterdir() if folder.name.isdigit())

    def _verify(self, step: int) -> None:
        folder = self._folder / str(step)
        remedy = f"delete {folder} to use the checkpoint before it, or restore the file from a copy"
        if not (folder / MANIFEST).is_file():
            # Killed between the end of a save and its manifest: Orbax's own rename says it is complete.
            return
        try:
            expected = json.loads((folder / MANIFEST).read_text())
        except ValueError as error:
            raise InputError(f"checkpoint {folder} is damaged: {MANIFEST} is not what was written; {remedy}") from error
        for name, checksum in expected.items():
            file = folder / name
            if not file.is_file():
                raise InputError(f"checkpoint {folder} is damaged: {name} is missing; {remedy}")
            if _sha256(file) != checksum:
                raise InputError(f"checkpoint {folder} is damaged: {name} is not what was written; {remedy}")


def _score(metrics: Mapping[str, float]) -> float:
    # Not a number, where all of val is void, compares as better than anything.
    return -math.inf if math.isnan(metrics[BEST_BY]) else metrics[BEST_BY]


def _checksums(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): _sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(MANIFEST)
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
