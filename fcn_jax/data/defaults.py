"""Fill in what a configuration leaves open with what its data set wants."""

import dataclasses

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.sources import get_source


def fill_config(config: Config) -> Config:
    """Return the configuration with every value set that decides a number of the training.

    The input of a network that starts from weights stays open: it is known once the weights are read.

    Raises:
        InputError: the data set is unknown.
    """
    wants = get_source(config.data.name).defaults
    model, augment, optim = config.model, config.augment, config.optim
    if model.weights is None and model.init_from is None:
        model = dataclasses.replace(model, input=model.input_or_default)
    return dataclasses.replace(
        config,
        model=model,
        augment=dataclasses.replace(augment, crop=augment.crop or wants.crop, scale=augment.scale or wants.scale),
        optim=dataclasses.replace(optim, learning_rate=optim.learning_rate or wants.learning_rate),
        steps=wants.steps if config.steps is None else config.steps,
        batch_size=config.batch_size or wants.batch_size,
    )


def fill_options(options: RunOptions, config: Config) -> RunOptions:
    """Return the options with every interval set.

    Args:
        options: of the run.
        config: of the same run, filled.
    """
    assert config.steps is not None
    eval_every = options.eval_every or max(min(get_source(config.data.name).defaults.eval_every, config.steps), 1)
    return dataclasses.replace(options, eval_every=eval_every, checkpoint_every=options.checkpoint_every or eval_every)
