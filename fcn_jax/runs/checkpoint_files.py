"""The files of checkpoints: a folder for each step with its checksums, and the scores of all.

Nothing here needs Orbax, which writes and reads the arrays.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.runtime.files import sha256, sync_tree, write_atomically
from fcn_jax.runtime.json_values import parse_json

MANIFEST = "sha256.json"  # in the folder of a checkpoint: the checksum of each of its other files
SCORES = "scores.json"  # beside the checkpoints: the mean IU on val of each step


def find_latest_step(run_dir: Path) -> int | None:
    """Return the step of a run's latest checkpoint, or None if it has none."""
    # Opening `Checkpoints` would be an operation of all processes, which may see different folders.
    steps = list_complete(run_dir / "checkpoints")
    return steps[-1] if steps else None


def list_complete(folder: Path) -> list[int]:
    """List the steps whose folders have their final names, in order."""
    return sorted(int(file.name) for file in folder.iterdir() if is_step(file.name)) if folder.is_dir() else []


def is_step(name: str) -> bool:
    """Return whether a folder's name is that of a complete checkpoint: a step, as `str` writes it."""
    # There are other digits, as ², which `int` refuses, and 07 would be taken for 7.
    return name.isascii() and name.isdigit() and str(int(name)) == name


def has_manifest(folder: Path) -> bool:
    """Return whether a checkpoint has its checksums, and so is on the disk."""
    return (folder / MANIFEST).is_file()


def write_manifest(folder: Path) -> None:
    """Write the checksums of the files of a complete checkpoint, if it has none yet."""
    if not has_manifest(folder):
        sync_tree(folder)  # Orbax does not
        write_atomically(folder / MANIFEST, json.dumps(_compute_checksums(folder), indent=1))


def _compute_checksums(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(MANIFEST)
    }


def find_damage(folder: Path) -> str | None:
    """Describe what is wrong with the files of a checkpoint; None: nothing."""
    if not has_manifest(folder):
        # A process that is killed between the save and the manifest leaves a complete save, by its final name. If the
        # machine lost its power, the files may be empty: `set_aside_damaged` prefers an earlier one with a manifest.
        return None if (folder / "_CHECKPOINT_METADATA").is_file() else "it is not one, or not whole"
    try:
        expected = dict(parse_json((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return f"{MANIFEST} is not what was written"
    for name, checksum in expected.items():
        try:
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256(folder / name) != checksum:
                return f"{name} is not what was written"
        except OSError as error:  # as of a disk that fails
            return f"{name} cannot be read ({error.strerror})"
        except (ValueError, TypeError):  # it is no name of a file
            return f"{MANIFEST} is not what was written"
    return None


def find_best(steps: Iterable[int], scores: Mapping[int, float]) -> int | None:
    """Return the step with the highest score, of equal ones the last; None if no step has one."""
    # NaN, the mean IU of a val split that is all void, would compare as better than anything.
    scored = [(-math.inf if math.isnan(scores[step]) else scores[step], step) for step in steps if step in scores]
    return max(scored)[1] if scored else None


def read_scores(folder: Path) -> dict[int, float]:
    """Read the scores of the checkpoints in a folder.

    Raises:
        InputError: they cannot be read.
    """
    file = folder / SCORES
    try:
        if file.exists():
            return {int(step): math.nan if x is None else float(x) for step, x in parse_json(file.read_text()).items()}
        # Former versions kept the score of a checkpoint in its folder.
        files = {int(file.parts[-3]): file for file in folder.glob("*/metrics/metrics") if is_step(file.parts[-3])}
        return {step: float(parse_json(file.read_text())["mean_iu"]) for step, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"the scores of the checkpoints in {folder} cannot be read ({error!r}); restore {file} from a copy, or "
            "write {} into it, and the last checkpoint counts as the best"
        ) from error
