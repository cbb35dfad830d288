"""Restore a trained network's variables from the checkpoints of a run."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from fcn_jax.data.tasks import name_scores
from fcn_jax.errors import InputError
from fcn_jax.models.build import Network, shape_variables
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.run_dir import Run
from fcn_jax.weights.weights import Weights


def restore_variables(run: Run, model: Network, step: int | None = None) -> tuple[dict[str, Any], int]:
    """Restore the network's variables onto the first local device.

    Args:
        run: the run.
        model: the network of the run.
        step: the checkpoint to read; None: the best by mean IU on the val split.

    Returns:
        The variables, and the step of their checkpoint.

    Raises:
        InputError: the run has no checkpoint, or none of `step`, or the checkpoint is damaged.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    channels = run.config.model.input_or_default.num_channels
    shapes = shape_variables(model, channels)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
    while True:
        with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
            chosen = checkpoints.best() if step is None else step
            if chosen is None or chosen not in checkpoints.steps():
                there = ", ".join(map(str, checkpoints.steps())) or "none"
                which = "" if step is None else f" {step}"
                raise InputError(
                    f"{run.folder} has no checkpoint{which}; there are: {there}; train it on, or give another"
                )
            try:
                return checkpoints.restore(chosen, {"variables": like})["variables"], chosen
            except InputError:
                # A training that goes on removes checkpoints: then another one is the best or the last.
                if not _is_removed_soon(run.checkpoints / str(chosen)):
                    raise


def make_weights(run: Run, variables: Mapping[str, Any], step: int, name: str | Path) -> Weights:
    """Return restored variables as weights, with the input that they belong to and the classes of their score layers.

    Args:
        run: the run.
        variables: from `restore_variables`.
        step: the step of their checkpoint.
        name: what the user calls the run.
    """
    arrays = {path: np.asarray(array) for path, array in flatten_dict(variables, sep="/").items()}
    origin = f"{name} (run, step {step})"
    return Weights(arrays, (), run.config.model.input_or_default, origin, name_scores(run.tasks))


def _is_removed_soon(folder: Path) -> bool:
    """Return whether a folder that cannot be read is gone, or goes within two seconds."""
    for _ in range(20):
        if not folder.exists():
            return True
        time.sleep(0.1)
    return False
