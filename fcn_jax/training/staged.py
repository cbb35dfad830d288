"""Staged training: FCN-32s, then FCN-16s from it, then FCN-8s (Long, Shelhamer & Darrell 2015, section 4.2)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from fcn_jax.config import STAGES, Config, OptimConfig
from fcn_jax.inference.evaluate import Evaluation
from fcn_jax.training.loop import train
from fcn_jax.training.start import last_step

# What a stage's network has not yet (see `fcn_jax.models.fcn`).
LATER = {
    "fcn32s": ("score_pool", "upscore2", "upscore_pool4", "upscore16", "upscore8"),
    "fcn16s": ("score_pool3", "upscore_pool4", "upscore8"),
    "fcn8s": (),
}


def stages(config: Config, folder: Path) -> list[tuple[Config, Path]]:
    """The trainings, from 32s to the head asked for, each with the folder of its run.

    Args:
        config: of all of them; its rate is multiplied with each stage's factor.
        folder: of the folders.
    """
    resolved = config.resolved()
    heads = STAGES[: STAGES.index(config.model.head) + 1]
    result: list[tuple[Config, Path]] = []
    for head, factor in zip(heads, config.stage_factors, strict=False):
        model = dataclasses.replace(config.model, head=head)
        if result:
            model = dataclasses.replace(model, weights=None, init_from=(result[-1][1]).absolute())
        optim = dataclasses.replace(
            _groups(config.optim, LATER[head]), learning_rate=resolved.optim.learning_rate * factor
        )
        stage = dataclasses.replace(config, model=model, optim=optim, run_dir=None, staged=False)
        result.append((stage, folder / head))
    return result


def _groups(optim: OptimConfig, later: tuple[str, ...]) -> OptimConfig:
    """Without the groups of layers that come in a later stage."""
    return dataclasses.replace(
        optim,
        frozen=tuple(name for name in optim.frozen if not name.startswith(later)),
        rate_factors=tuple((name, factor) for name, factor in optim.rate_factors if not name.startswith(later)),
    )


def train_staged(config: Config, folder: Path, say: Callable[[str], None] = print) -> Evaluation | None:
    """Trains one stage after the other; called again, goes on in the stage that was left.

    Args:
        config: `staged`, with the head of the last stage.
        folder: holds a run directory for each stage.
        say: takes lines for the user.

    Returns:
        The evaluation after the last step; None where there was nothing to do, or a signal stopped it.

    Raises:
        InputError: data or configuration that do not fit.
        FloatingPointError: the loss is no longer finite.
    """
    evaluation = None
    for stage, run in stages(config, folder):
        if config.dry_run:  # a stage's weights are not there yet, and change nothing of what is told
            say(f"{run.name}:")
            train(dataclasses.replace(stage, model=dataclasses.replace(stage.model, init_from=None)), run, say)
            continue
        evaluation = train(stage, run, say)
        if last_step(run) < stage.resolved().steps:
            return None
    return evaluation
