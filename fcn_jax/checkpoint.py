"""Checkpoints of a run: Orbax, asynchronous, the latest N and the best by val mean IU, each with its checksums."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from fcn_jax.errors import InputError
from fcn_jax.run import write_whole

MANIFEST = "sha256.json"
BEST_BY = "mean_iu"


class Checkpoints:
    """The checkpoints in a folder, by step. Use it in a `with` statement: leaving it waits for the last save."""

    def __init__(self, folder: Path, keep: int = 2):
        self._folder = folder.absolute()
        latest = preservation_policy.LatestN(keep)
        best = preservation_policy.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            best_fn=_score,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifests),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
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

    def _write_manifests(self) -> None:
        """Checksums of each complete checkpoint that has none: Orbax restores a flipped bit without complaint."""
        if jax.process_index() != 0:
            return
        for folder in self._folder.iterdir():
            if folder.name.isdigit() and not (folder / MANIFEST).exists():
                write_whole(folder / MANIFEST, json.dumps(_checksums(folder), indent=1))

    def _verify(self, step: int) -> None:
        folder = self._folder / str(step)
        remedy = f"delete {folder} to use the checkpoint before it, or restore the file from a copy"
        if not (folder / MANIFEST).is_file():
            # Killed between the end of a save and its manifest: Orbax's own rename says it is complete.
            return
        expected = json.loads((folder / MANIFEST).read_text())
        for name, checksum in expected.items():
            file = folder / name
            if not file.is_file():
                raise InputError(f"checkpoint {folder} is damaged: {name} is missing; {remedy}")
            if _sha256(file) != checksum:
                raise InputError(f"checkpoint {folder} is damaged: {name} is not what was written; {remedy}")


def _score(metrics: Mapping[str, float]) -> float:
    return metrics[BEST_BY]


def _checksums(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): _sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(MANIFEST)
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
