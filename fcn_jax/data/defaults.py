"""Fill in the values that a configuration leaves open with the defaults of its data set."""

import dataclasses

from fcn_jax.config import Config, RunOptions
from fcn_jax.data.sources import get_source


def fill_config(config: Config) -> Config:
    """Return the configuration with every value set that decides a number of the training.

    The input of a network that starts from weights stays open until the weights are read.

    Raises:
        InputError: the data set is unknown.
    """
    defaults = get_source(config.data.name).defaults
    model, augment, optim = config.model, config.augment, config.optim
    if model.weights is None and model.init_from is None:
        model = dataclasses.replace(model, input=model.input_or_default)
    return dataclasses.replace(
        config,
        model=model,
        augment=dataclasses.replace(augment, crop=augment.crop or defaults.crop, scale=augment.scale or defaults.scale),
        optim=dataclasses.replace(optim, learning_rate=optim.learning_rate or defaults.learning_rate),
        steps=defaults.steps if config.steps is None else config.steps,
        batch_size=config.batch_size or defaults.batch_size,
    )


def fill_options(options: RunOptions, config: Config) -> RunOptions:
    """Return the options with every interval set.

    Args:
        options: options of the run.
        config: configuration of the same run, with every value set (`fill_config`).

    Raises:
        InputError: the data set is unknown.
    """
    assert config.steps is not None
    eval_every = options.eval_every or max(min(get_source(config.data.name).defaults.eval_every, config.steps), 1)
    return dataclasses.replace(options, eval_every=eval_every, checkpoint_every=options.checkpoint_every or eval_every)
