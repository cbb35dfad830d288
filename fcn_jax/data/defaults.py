"""Fill in the values that a configuration leaves open with the defaults of its data set and of its kind of network.

The data set's entry has the rate of a network with batch norm. `NETWORKS` has what follows from the network.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from fcn_jax.config import Config, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.hold_out import HELD_OUT
from fcn_jax.data.inputs import COLOUR, Input
from fcn_jax.data.sources import choose_inputs, get_source
from fcn_jax.errors import InputError


@dataclass(frozen=True)
class NetworkDefaults:
    """Values for training a kind of network where neither the preset nor a flag gives one.

    Attributes:
        rate_factor: factor on the data set's learning rate.
        warmup_steps: number of first steps with a rising rate, and at most a tenth of all steps.
        clip_norm: largest norm of the gradient; 0: it is not clipped.
        follows_input: whether the features grow with the input. If they do, their size is about that of the input.
    """

    rate_factor: float
    warmup_steps: int
    clip_norm: float
    follows_input: bool


# docs/recipes.md has the reason for each number, and what was measured.
NETWORKS = {
    "ResNet18 and 34": NetworkDefaults(rate_factor=1.0, warmup_steps=0, clip_norm=0.0, follows_input=False),
    "other with batch norm": NetworkDefaults(rate_factor=1.0, warmup_steps=100, clip_norm=1.0, follows_input=False),
    "without batch norm": NetworkDefaults(rate_factor=0.5, warmup_steps=100, clip_norm=1.0, follows_input=True),
}


def get_network_defaults(model: ModelConfig) -> NetworkDefaults:
    """Return the defaults for training a network."""
    if not model.has_batch_norm:
        return NETWORKS["without batch norm"]
    return NETWORKS["ResNet18 and 34" if model.backbone in ("resnet18", "resnet34") else "other with batch norm"]


def fill_config(config: Config) -> Config:
    """Return the configuration with every value set that decides a number of the training.

    The input of a network that starts from weights stays open until the weights are read, that of one on other inputs
    than colour until the data is, and so does the size of their features. Call the function again when it is known.

    Raises:
        InputError: the data set or one of its inputs is unknown, or `config` is no `Config`.
    """
    if not isinstance(config, Config):
        raise InputError(
            f"config is of type {type(config).__name__}; give a fcn_jax.config.Config, such as PRESETS['fcn8s'].config"
        )
    source = get_source(config.data.name)
    defaults, inputs = source.defaults, choose_inputs(source, config.data.inputs)
    model, augment = config.model, config.augment
    starts_new = model.weights is None and model.init_from is None and not model.init_streams
    if starts_new and inputs == (COLOUR,):  # what else there is becomes known with the data
        model = dataclasses.replace(model, input=model.input_or_default)
    steps = defaults.steps if config.steps is None else config.steps
    return dataclasses.replace(
        config,
        model=model,
        augment=dataclasses.replace(augment, crop=augment.crop or defaults.crop, scale=augment.scale or defaults.scale),
        optim=_fill_optim(config.optim, model, inputs, defaults.learning_rate, steps),
        steps=steps,
        batch_size=config.batch_size or defaults.batch_size,
    )


def _fill_optim(
    optim: OptimConfig, model: ModelConfig, inputs: Sequence[Input], learning_rate: float, steps: int
) -> OptimConfig:
    network = get_network_defaults(model)
    feature_scale = optim.feature_scale
    if feature_scale is None and not network.follows_input:
        feature_scale = 1.0
    elif feature_scale is None and model.input is not None:
        # How large the input is, compared with one that has a deviation of 1. Measured deviations give just that.
        deviations = [value for given in inputs for value in given.std or ()]
        feature_scale = round(mean(deviations) / mean(model.input.std), 4) if deviations else 1.0
    warmup_steps = min(network.warmup_steps, steps // 10) if optim.warmup_steps is None else optim.warmup_steps
    return dataclasses.replace(
        optim,
        learning_rate=optim.learning_rate or learning_rate * network.rate_factor,
        warmup_steps=warmup_steps,
        clip_norm=network.clip_norm if optim.clip_norm is None else optim.clip_norm,
        feature_scale=feature_scale,
    )


def fill_options(options: RunOptions, config: Config) -> RunOptions:
    """Return the options with every interval and the split to evaluate on set.

    Args:
        options: options of the run.
        config: configuration of the same run, with every value set (`fill_config`).

    Raises:
        InputError: the data set is unknown.
    """
    eval_every = options.eval_every or max(min(get_source(config.data.name).defaults.eval_every, config.ends[-1]), 1)
    val_split = options.data.val_split or (HELD_OUT if config.data.hold_out else "val")
    return dataclasses.replace(
        options,
        data=dataclasses.replace(options.data, val_split=val_split),
        eval_every=eval_every,
        checkpoint_every=options.checkpoint_every or eval_every,
    )
