"""Find which results of an interrupted prediction can be kept.

The folder of results has `predict.json`, which says what they are made by: the network and what changes the files. A
result is kept if it is newer than that file and than its image. So another network or another flag makes all anew.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.tta import Views
from fcn_jax.runtime.files import write_atomically
from fcn_jax.runtime.json_values import parse_json, to_json

MADE_BY = "predict.json"


def describe_origin(model: Any, step: int, variables: Any, views: Views | None, outputs: Outputs) -> dict[str, Any]:
    """Describe what results are made by, as JSON values.

    Args:
        model: the run's `ModelConfig`.
        step: the checkpoint.
        variables: parameters and batch statistics, which are described by their SHA-256 checksum.
        views: the views of each image.
        outputs: what is written for each image.
    """
    checksum = hashlib.sha256()
    for array in jax.tree.leaves(variables):
        checksum.update(np.ravel(array).data)
    looks = {
        "palette": outputs.palette.tolist(),
        "class_names": list(outputs.class_names),
        "values": None if outputs.values is None else outputs.values.tolist(),
        "alpha": outputs.alpha,
        "legend": outputs.legend,
        "probabilities": outputs.probabilities,
    }
    if outputs.others:
        looks["others"] = to_json((outputs.others, outputs.other_values))
    return {
        "step": step,
        "variables": checksum.hexdigest(),
        "views": to_json(views),
        "outputs": looks,
        "model": to_json(model),
    }


def write_origin(origin: Mapping[str, Any], out: Path) -> None:
    """Write what the results in a folder are made by. All results there are then older, and made anew."""
    write_atomically(out / MADE_BY, json.dumps(origin, indent=1) + "\n")


def find_done(files: Sequence[Path], out: Path, outputs: Outputs, origin: Mapping[str, Any]) -> list[Path]:
    """Find the images whose results in a folder are complete, of this origin, and newer than the image."""
    try:
        if parse_json((out / MADE_BY).read_text()) != json.loads(json.dumps(origin)):
            return []
        began = (out / MADE_BY).stat().st_mtime_ns
    except (OSError, ValueError):  # there is none, or it is damaged
        return []

    def is_done(file: Path) -> bool:
        try:
            results = [(out / name).stat().st_mtime_ns for name in outputs.name_files(file.stem)]
            return min(results) > max(began, file.stat().st_mtime_ns)
        except OSError:
            return False

    return [file for file in files if is_done(file)]
