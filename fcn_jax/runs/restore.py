"""Restore a trained network's variables from the checkpoints of a run."""

import time
from pathlib import Path
from typing import Any

import jax

from fcn_jax.errors import InputError
from fcn_jax.models.build import Network, shape_variables
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.run_dir import Run


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


def _is_removed_soon(folder: Path) -> bool:
    """Return whether a folder that cannot be read is gone, or goes within two seconds."""
    for _ in range(20):
        if not folder.exists():
            return True
        time.sleep(0.1)
    return False
