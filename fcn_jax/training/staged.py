"""Staged training: FCN-32s, then FCN-16s from it, then FCN-8s (Long, Shelhamer & Darrell 2015, section 4.2)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from fcn_jax.config import HEADS, Config, OptimConfig, RunOptions
from fcn_jax.data.defaults import fill_config
from fcn_jax.errors import Diverged
from fcn_jax.inference.evaluate import Evaluation
from fcn_jax.runtime.bucket import make_absolute
from fcn_jax.runtime.files import expand_home
from fcn_jax.training.loop import train

# Beginnings of the paths of parameters that the network of a stage does not have yet (see fcn_jax/models/fcn.py).
LATER = {
    "fcn32s": ("score_pool", "upscore2", "upscore_pool4", "upscore16", "upscore8"),
    "fcn16s": ("score_pool3", "upscore_pool4", "upscore8"),
    "fcn8s": (),
}


def list_stages(config: Config, run_dir: Path) -> list[tuple[Config, Path]]:
    """List the trainings from 32s to the head asked for, each with its run directory.

    The last stage alone is extended: a coarser one has to stay what the next one started from.

    Args:
        config: configuration of the staged training; its learning rate is multiplied by each stage's factor.
        run_dir: the folder of the stages' run directories.
    """
    rate = fill_config(config).optim.learning_rate
    assert rate is not None
    stages: list[tuple[Config, Path]] = []
    heads = HEADS[: HEADS.index(config.model.head) + 1]
    for head, factor in zip(heads, config.stage_factors, strict=False):
        model = dataclasses.replace(config.model, head=head)
        if stages:
            before = make_absolute(stages[-1][1])
            model = dataclasses.replace(model, weights=None, init_streams=(), init_from=before)
        optim = dataclasses.replace(_drop_groups(config.optim, LATER[head]), learning_rate=rate * factor)
        extend = config.extend if head == heads[-1] else ()
        stage = dataclasses.replace(config, model=model, optim=optim, extend=extend, staged=False)
        stages.append((stage, run_dir / head))
    return stages


def train_staged(
    config: Config, options: RunOptions, run_dir: str | Path, say: Callable[[str], None] = print
) -> Evaluation | None:
    """Train one stage after the other. The same call again resumes the stage that was stopped.

    Args:
        config: configuration with `staged` set and the head of the last stage.
        options: how to conduct the runs.
        run_dir: the folder of the stages' run directories.
        say: function that shows a line to the user.

    Returns:
        The evaluation after the last step; None if there was nothing to do, or it was a dry run.

    Raises:
        Stopped: a signal has stopped a stage, and its state is saved.
        InputError: configuration, data or weights that do not fit.
        Diverged: the loss or the norm of the gradient is no longer finite.
        OutOfMemory: a step or an evaluation needs more memory than there is.
    """
    evaluation = None
    for stage, folder in list_stages(config, expand_home(run_dir)):
        if options.dry_run:  # no stage has weights yet, and weights do not change its needs
            say(f"{folder.name}:")
            train(
                dataclasses.replace(stage, model=dataclasses.replace(stage.model, init_from=None)), options, folder, say
            )
            continue
        try:
            evaluation = train(stage, options, folder, say)
        except Diverged as error:
            factor = config.stage_factors[HEADS.index(folder.name)]
            raise Diverged(f"{error}. In this stage the rate is {factor:g} times the flag (--stage-factors)") from error
    return evaluation


def _drop_groups(optim: OptimConfig, later: tuple[str, ...]) -> OptimConfig:
    """Drop the groups of parameters that exist only in later stages, also those of a stream (late fusion)."""

    def is_kept(name: str) -> bool:
        return not (name.startswith(later) or name.partition("/")[2].startswith(later))

    return dataclasses.replace(
        optim,
        frozen=tuple(filter(is_kept, optim.frozen)),
        rate_factors=tuple((name, factor) for name, factor in optim.rate_factors if is_kept(name)),
    )
