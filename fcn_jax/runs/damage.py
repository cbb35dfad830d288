"""Set checkpoints aside that are damaged, so that a run resumes from the one before."""

import sys
import uuid
from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.runs.checkpoint_files import MANIFEST, find_damage, has_manifest, list_complete
from fcn_jax.runs.run_dir import lock_run


def set_aside_damaged(run_dir: Path) -> None:
    """Move the last checkpoints of a run to its folder `damaged` if they are, so that it resumes from the one before.

    Raises:
        InputError: all checkpoints are damaged, or another process trains in the run directory.
    """
    checkpoints = run_dir / "checkpoints"
    steps = list_complete(checkpoints)
    if not steps or not (run_dir / "config.json").is_file():
        return
    with lock_run(run_dir):
        damages = {}
        while steps and (
            damage := find_damage(checkpoints / str(steps[-1])) or _find_missing_manifest(checkpoints, steps)
        ):
            damages[steps.pop()] = damage
        if not steps:
            listing = "".join(f"\n  {step}: {damage}" for step, damage in damages.items())
            raise InputError(
                f"no checkpoint in {checkpoints} is intact:{listing}\n"
                "restore one from a copy, or give another --run-dir"
            )
        for step, damage in damages.items():
            place = set_aside(run_dir, step)
            print(
                f"warning: checkpoint {step} is damaged: {damage}; it is moved to {place}, and step {steps[-1]} is "
                "used",
                file=sys.stderr,
            )


def _find_missing_manifest(checkpoints: Path, steps: list[int]) -> str | None:
    """Describe what is wrong if the last checkpoint has no checksums, and one before it has and is intact.

    A machine that lost its power or its disk keeps the folder's final name, and not always what is in its files.
    """
    *before, last = (checkpoints / str(step) for step in steps)
    if has_manifest(last) or not any(has_manifest(folder) and find_damage(folder) is None for folder in before):
        return None
    return f"it has no {MANIFEST}, so it may not have reached the disk"


def set_aside(run_dir: Path, step: int) -> Path:
    """Move a checkpoint of a run to its folder `damaged`, and return its new place."""
    place = run_dir / "damaged" / f"{step}-{uuid.uuid4().hex[:8]}"
    place.parent.mkdir(exist_ok=True)
    (run_dir / "checkpoints" / str(step)).rename(place)
    return place
