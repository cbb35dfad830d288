"""Go back to the last sound checkpoint of a training that has diverged, with a lower learning rate."""

import dataclasses
import json
import statistics
from pathlib import Path

import jax

from fcn_jax.config import Config
from fcn_jax.runs.checkpoint_files import list_complete
from fcn_jax.runs.damage import set_aside
from fcn_jax.runs.metrics_log import read_log
from fcn_jax.runs.run_dir import lock_run, open_run
from fcn_jax.runtime.processes import fail_together, gather

TRIES = 2  # rewinds to a checkpoint before the one before it is taken
WORSE = 2.0  # factor on the first losses of a run above which a state is on its way to diverge
FIRST, LAST = 10, 3  # losses in the log whose medians are compared: one is of one batch, which may be easy or hard


def adopt_rate_cuts(config: Config, run_dir: Path) -> Config:
    """Return the configuration with the rate cuts of the run, if they are those given and more."""
    if not (run_dir / "config.json").is_file():
        return config
    return _with_cuts(config, _read_cuts(run_dir, config))


def rewind(config: Config, run_dir: Path) -> tuple[Config, int]:
    """Choose the checkpoint to go back to, and halve the learning rate after its step.

    If its losses are far above the first ones of the run, or if it did not help `TRIES` times, a checkpoint is moved to
    the folder `damaged`, and the one before it is taken. All processes have to call this.

    Args:
        config: the configuration of the training that has diverged, which holds its rate cuts.
        run_dir: the run directory.

    Returns:
        The configuration to go on with, and the step to go back to; 0: the training starts again.
    """
    cuts: list[int] = []
    with fail_together():
        if jax.process_index() == 0:
            with lock_run(run_dir):
                cuts = _go_back(run_dir, _read_cuts(run_dir, config))
    cuts = json.loads(gather(json.dumps(cuts))[0])
    return _with_cuts(config, tuple(cuts)), cuts[-1]


def _go_back(run_dir: Path, cuts: tuple[int, ...]) -> list[int]:
    steps = list_complete(run_dir / "checkpoints")
    while steps and not (_is_sound(run_dir, steps[-1]) and cuts.count(steps[-1]) < TRIES):
        set_aside(run_dir, steps.pop())
    return [*cuts, steps[-1] if steps else 0]


def _is_sound(run_dir: Path, step: int) -> bool:
    """Return whether the last losses of training up to a step are not far above the first ones."""
    losses = [line["loss"] for line in read_log(run_dir) if line["split"] == "train" and line["step"] <= step]
    known = [loss for loss in losses if loss]  # None: not finite; 0: of void alone
    first = known[: max(1, min(FIRST, len(known) - LAST))]
    return not known or statistics.median(known[-LAST:]) <= WORSE * statistics.median(first)


def _read_cuts(run_dir: Path, config: Config) -> tuple[int, ...]:
    """Read the rate cuts of a run if they begin with those given, or return these."""
    given, stored = config.optim.rate_cuts, open_run(run_dir).config.optim.rate_cuts
    return stored if stored[: len(given)] == given else given


def _with_cuts(config: Config, cuts: tuple[int, ...]) -> Config:
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, rate_cuts=cuts))
