"""What differs between the configuration of a run and the one given to resume it."""

import dataclasses
from itertools import pairwise

from fcn_jax.config import HEADS, Config
from fcn_jax.runtime.json_values import flatten, to_json


def list_differences(old: Config, new: Config) -> list[str]:
    """List the values that would change the numbers of a resumed run, each as a line "name: old -> new".

    A further extension changes no step before it, so it is left out. The number of steps is left out if the rate is
    constant, because that rate does not depend on where a run ends. The factors of stages are left out if there are no
    stages. So is the place of the stage before, in whose weights a stage started: its folder may have been moved.
    """
    before, after = flatten(to_json(old)), flatten(to_json(new))
    free = {"steps", "extend"} if old.optim.schedule == new.optim.schedule == "constant" else set()
    if new.extend[: len(old.extend)] == old.extend:
        free.add("extend")
    if not old.staged and not new.staged:
        free.add("stage_factors")
    places = {config.model.init_from.name for config in (old, new) if config.model.init_from}
    if old.model.init_from and new.model.init_from and len(places) == 1 and places <= set(HEADS):
        free.add("model.init_from")
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"  # if one side is None as a whole, it has no parts
        for key in {**before, **after}
        if key not in free and before.get(key) != after.get(key)
    ]


def list_changes(old: Config, new: Config, taken: int) -> list[str]:
    """List the differences that would change a step, as `list_differences` does.

    An extension beyond the steps taken may be changed, and so may a cut of the learning rate.

    Args:
        old: the configuration of the run.
        new: the configuration that was given.
        taken: the number of steps that the run has taken.
    """
    old = _drop_open_extensions(old, taken)
    return list_differences(_drop_open_cuts(old, taken), _drop_open_cuts(new, taken))


def advise_extension(old: Config, new: Config, taken: int) -> str:
    """Return the flags for the steps that were asked for, if those given differ from what the run was trained with.

    Args:
        old: the configuration of the run.
        new: the configuration that was given.
        taken: the number of steps that the run has taken.
    """
    old = _drop_open_extensions(old, taken)
    if (old.steps, old.extend) == (new.steps, new.extend):
        return ""
    longer = [new.ends[-1]] if new.ends[-1] > old.ends[-1] else []
    extensions = [*old.extend, *longer]
    flags = ["--steps", old.steps, *(["--extend", *extensions] if extensions else [])]
    return f"; give its steps as {' '.join(map(str, flags))}"


def _drop_open_extensions(config: Config, taken: int) -> Config:
    """Leave out the extensions that no step depends on: those of an end that the run has not gone beyond."""
    decided = [end for before, end in pairwise(config.ends) if before < taken]
    return dataclasses.replace(config, extend=tuple(decided))


def _drop_open_cuts(config: Config, taken: int) -> Config:
    """Leave out the cuts of the learning rate that no step taken depends on."""
    cuts = tuple(cut for cut in config.optim.rate_cuts if cut < taken)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, rate_cuts=cuts))
