"""What a new network starts from: a file of weights, the official ImageNet ones, or another run."""

import dataclasses
from pathlib import Path

import numpy as np

from fcn_jax.config import Config, InputConfig, ModelConfig
from fcn_jax.data import dataset as datasets
from fcn_jax.errors import InputError
from fcn_jax.models.build import build
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import open_run
from fcn_jax.weights import imagenet
from fcn_jax.weights.merge import flatten_paths
from fcn_jax.weights.read import read_weights
from fcn_jax.weights.weights import Weights


def starting_point(config: Config, folder: Path) -> tuple[Config, Weights | None]:
    """The weights that a run starts from, and its configuration with the input they want.

    Of a run that has a checkpoint nothing is read: the checkpoint holds every variable, `config.json` the input. So
    the files it started from may be gone.

    Args:
        config: resolved.
        folder: the run directory, there or not.

    Raises:
        InputError: the weights cannot be read, or want another input than the flags say.
    """
    model = config.model
    if model.weights is None and model.init_from is None:
        return config, None
    if last_step(folder):
        weights, wanted = None, model.input or open_run(folder).config.model.settled_input
    else:
        weights = _read(model, config.data.cache)
        wanted = _agreed(model.input, weights)
    return dataclasses.replace(config, model=dataclasses.replace(model, input=wanted)), weights


def last_step(folder: Path) -> int:
    """The step of a run's latest checkpoint; 0 where there is none."""
    if not (folder / "checkpoints").is_dir():
        return 0
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.latest() or 0


def of(place: Path) -> Weights:
    """The weights in a file, or those of the best checkpoint of a run directory."""
    if not place.is_dir():
        return read_weights(place)
    run = open_run(place)
    variables, step = restore_variables(run, build(run.config.model, len(run.class_names)))
    arrays = {path: np.asarray(array) for path, array in flatten_paths(variables).items()}
    return Weights(arrays, (), run.config.model.settled_input, f"{place} (run, step {step})", run.class_names)


def _read(model: ModelConfig, cache: Path | None) -> Weights:
    if model.init_from is not None:
        return of(model.init_from)
    if model.weights == "imagenet":
        return read_weights(imagenet.fetch_weights(model.backbone, cache or datasets.cache_folder()))
    return read_weights(Path(model.weights or ""))


def _agreed(given: InputConfig | None, weights: Weights) -> InputConfig:
    """The input of weights, which the flags may confirm; only where the file tells nothing do they decide."""
    if weights.input is None:
        return given or InputConfig()
    if given in (None, weights.input):
        return weights.input
    pairs = zip(dataclasses.asdict(weights.input).items(), dataclasses.asdict(given).values(), strict=True)
    listing = "\n  ".join(f"model.input.{name}: {old} -> {new}" for (name, old), new in pairs if old != new)
    raise InputError(
        f"{weights.origin} was trained with another input than the flags say:\n  {listing}\n"
        "it is worth nothing with that; leave --model.input out"
    )
