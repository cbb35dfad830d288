"""Checkpoints of a run, written by Orbax: the latest N, and the best by mean IU on val, each with its checksums.

A state is saved before it is evaluated, so that an evaluation that is stopped or killed costs no steps. Its score is
noted afterwards, in scores.json.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from fcn_jax.errors import InputError, WriteFailed
from fcn_jax.runs.checkpoint_files import SCORES, find_best, find_damage, list_complete, read_scores, write_manifest
from fcn_jax.runtime.files import write_atomically
from fcn_jax.runtime.json_values import to_json
from fcn_jax.runtime.memory import format_bytes
from fcn_jax.runtime.processes import fail_together

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # what a failed save may be due to
COMPRESSED = 0.9  # Orbax compresses trained float32 arrays to this share of their size

# Two warnings of Orbax are hidden because they are intended: a folder may be opened for reading only, and several
# processes stop together. Its errors are hidden because it raises them too, and each of its threads logs a failed save
# with a stack trace of its own.
INTENDED = ("read_only", "read only", "Reached preemption sync point")


def _is_worth_showing(record: logging.LogRecord) -> bool:
    if "orbax" in record.pathname and record.levelno >= logging.ERROR:
        return False
    return not any(words in record.getMessage() for words in INTENDED)


logging.getLogger("absl").addFilter(_is_worth_showing)


class _KeepBest(preservation_policy.PreservationPolicy):
    """Keep the checkpoint with the highest score."""

    def __init__(self, scores: Mapping[int, float]):
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        best = find_best([info.step for info in checkpoints], self._scores)
        return [info.step == best for info in checkpoints]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not take part in agreeing on the step to stop after.

    It would tell JAX the step of a save while later steps are taken.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints in a folder, by step. Use it in a `with` statement: leaving it waits for the last save."""

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        read_only: bool = False,
        before_save: Callable[[], None] = lambda: None,
        after_save: Callable[[], None] | None = None,
    ):
        """Open a folder of checkpoints.

        Args:
            folder: the folder; it is made if it does not exist, unless `read_only`.
            keep: number of latest checkpoints to keep, besides the best.
            read_only: change nothing, so that another process may train meanwhile. Otherwise half-saved checkpoints of
                killed processes are removed.
            before_save: function that raises an error if this process may not write the folder any more. The first
                process calls it before each save, and after one that failed.
            after_save: function that copies the folder elsewhere, called in the background after each save. Then each
                of several processes has a folder of its own, and the first one saves the whole state; otherwise all
                have the same folder, and each saves a part.

        Raises:
            InputError: the scores, or Orbax's own description of a checkpoint, cannot be read.
        """
        self._before_save, self._after_save, shared = before_save, after_save, after_save is None
        self._folder, self._read_only = folder.absolute(), read_only
        self._background = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self._scores = read_scores(self._folder)
        policies = [preservation_policy.LatestN(keep), _KeepBest(self._scores)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions() if shared else _act_alone(),
        )
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)  # Orbax makes shared folders only
        try:
            self._manager = _Manager(self._folder, options=options)
        except (OSError, MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # Orbax raises errors of any type for damaged files
            raise InputError(
                f"the checkpoints in {self._folder} cannot be opened ({error}); remove the damaged one, or restore its "
                "files from a copy"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
            if kind is None and not self._read_only:
                self._write_manifests()
        finally:
            self._background.shutdown()
            # It raises the error of a failed save once more.
            with contextlib.suppress(OSError, ValueError, jax.errors.JaxRuntimeError):
                self._manager.close()

    @property
    def has_all(self) -> bool:
        """Whether this process and all others have every checkpoint that was saved."""
        return self._after_save is None or jax.process_count() == 1

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """Return the last step that has a checkpoint, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Return the step with the best val mean IU, or the last step if none was evaluated."""
        best = find_best(self.steps(), self._scores)
        return self.latest() if best is None else best

    def note_score(self, step: int, mean_iu: float) -> None:
        """Note the mean IU of a step on val, 0 to 1 or NaN."""
        self._scores[step] = mean_iu
        self._write_scores()

    def _write_scores(self) -> None:
        there = {step: score for step, score in self._scores.items() if step in self.steps()}
        if jax.process_index() == 0:
            write_atomically(self._folder / SCORES, json.dumps(to_json({str(s): there[s] for s in sorted(there)})))

    def save(self, step: int, items: Mapping[str, Any]) -> None:
        """Save named trees of arrays in the background.

        Raises:
            WriteFailed: there is no room for this checkpoint, or the save before it failed.
            InputError: `before_save` has raised it.
        """
        self.wait()
        with fail_together():
            if jax.process_index() == 0:
                self._before_save()
                self._require_room(step, items)
        if self._after_save is not None and jax.process_count() > 1:
            if jax.process_index() != 0:
                return
            # Orbax takes arrays of one process of several as NumPy arrays only. Every process has all of the state.
            items = jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), dict(items))
        arguments = ocp.args.Composite(**{name: ocp.args.StandardSave(tree) for name, tree in items.items()})
        with self._explain_failure(step):
            if self._scores.pop(step, None) is not None:  # of a state that was set aside; it would decide what is kept
                self._write_scores()
            self._manager.save(step, args=arguments)
        self._saving = self._background.submit(self._complete, step)

    def look_after(self) -> None:
        """Raise WriteFailed if the save in the background has failed. Call this often."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save in the background.

        Raises:
            WriteFailed: it failed.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def restore(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Read the named trees of a step.

        Args:
            step: a step that has a checkpoint.
            like: for each name a tree of `jax.ShapeDtypeStruct` with the sharding wanted.

        Raises:
            InputError: a file has changed or is gone since it was written, or the arrays do not fit `like`.
        """
        self._verify(step)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # Orbax raises errors of any type for damaged files
            raise InputError(
                f"checkpoint {self._folder / str(step)} is damaged or does not fit the model of its run: {error}; "
                "was it made by another version? Then start a new run from it with --model.init-from; otherwise delete "
                "it to use the one before"
            ) from error
        return {name: restored[name] for name in like}

    def _complete(self, step: int) -> None:
        """Wait for a save and write its checksums. Orbax itself restores flipped bits without an error."""
        with self._explain_failure(step):
            self._manager.wait_until_finished()
            self._write_manifests()
        if self._after_save is not None:
            self._after_save()

    def _write_manifests(self) -> None:
        if jax.process_index() != 0:
            return
        for step in list_complete(self._folder):
            write_manifest(self._folder / str(step))

    def _require_room(self, step: int, items: Mapping[str, Any]) -> None:
        """Raise WriteFailed if the disk has too little room: Orbax's own errors come late, and in hundreds of lines."""
        needed = sum(array.nbytes for array in jax.tree.leaves(items))
        with self._explain_failure(step):
            free = shutil.disk_usage(self._folder).free
        if free < COMPRESSED * needed:
            raise self._describe_failure(step, f"no room for {format_bytes(needed)}")

    @contextlib.contextmanager
    def _explain_failure(self, step: int) -> Iterator[None]:
        """Replace errors of a save by one line, and remove what it wrote."""
        try:
            yield
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:  # ValueError: Orbax's for a full disk
            if jax.process_index() == 0:
                self._before_save()  # another process may have removed what is half written, and writes there now
            for leftover in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(leftover, ignore_errors=True)
            raise self._describe_failure(step, _find_reason(error)) from error

    def _describe_failure(self, step: int, reason: str) -> WriteFailed:
        try:
            complete, usage = list_complete(self._folder), shutil.disk_usage(self._folder)
        except OSError:  # the disk is gone
            room, goes_on = "the disk cannot be read", "goes on after the last complete one"
        else:
            room = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} are free"
            goes_on = (
                f"goes on after step {complete[-1]}, the last complete one" if complete else "starts the run again"
            )
        full = reason.startswith("no room") or reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
        return WriteFailed(
            f"the checkpoint of step {step} could not be written to {self._folder} ({reason}; {room}); "
            f"{'make room' if full else 'mend the disk'}, then the same command {goes_on}"
        )

    def _verify(self, step: int) -> None:
        folder = self._folder / str(step)
        if damage := find_damage(folder):
            raise InputError(
                f"checkpoint {folder} is damaged: {damage}; delete {folder} to use the checkpoint before it, or "
                "restore the file from a copy"
            )


def _act_alone() -> ocp.options.MultiprocessingOptions:
    """Return the options of Orbax for a folder that no other process sees."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


def _find_reason(error: Exception) -> str:
    """Find the reason of the system, such as "No space left on device", in an error of Orbax."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, jax.errors.JaxRuntimeError) and isinstance(error.__context__, Exception):
        return _find_reason(error.__context__)  # the others were waited for in vain after the first error
    known = [text for text in map(os.strerror, FULL) if text in str(error)]
    return known[0] if known else (str(error).splitlines() or [type(error).__name__])[0]
