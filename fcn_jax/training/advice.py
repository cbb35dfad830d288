"""Advice for a training that has diverged: the values that are known to train its network."""

import dataclasses

from fcn_jax.config import Config
from fcn_jax.data.defaults import fill_config

STEADYING = ("learning_rate", "warmup_steps", "clip_norm", "feature_scale")


def advise_steady(config: Config) -> str:
    """Name the flags that would have kept a training from diverging.

    They are the defaults of its network and data set. If it has them already, or a lower rate, the advice is a tenth of
    the rate.

    Args:
        config: configuration with every value set (`fill_config`).
    """
    rate = config.optim.learning_rate
    assert rate is not None
    open_optim = dataclasses.replace(config.optim, **dict.fromkeys(STEADYING))
    steady = dataclasses.asdict(fill_config(dataclasses.replace(config, optim=open_optim)).optim)
    steady["learning_rate"] = min(rate, steady["learning_rate"])
    used = dataclasses.asdict(config.optim)
    flags = [f"--optim.{name.replace('_', '-')} {steady[name]:g}" for name in STEADYING if steady[name] != used[name]]
    if flags:
        return f"{config.model.backbone} trains on {config.data.name} with {' '.join(flags)}"
    return f"give --optim.learning-rate {rate / 10:g}"
