"""Advice for a training that has diverged: the values with which its network is steadier."""

import dataclasses

from fcn_jax.config import Config, OptimConfig
from fcn_jax.data.defaults import fill_config


def advise_steady(config: Config) -> str:
    """Name the flags that may keep a training from diverging again.

    They are the defaults of its network and data set, where its own values are bolder. If none is, the advice is a
    tenth of its last learning rate. So it is for a summed loss, because the defaults are for a mean.

    Args:
        config: configuration with every value set (`fill_config`).
    """
    used = dataclasses.asdict(config.optim)
    used["learning_rate"] *= 0.5 ** len(config.optim.rate_cuts)
    known = dataclasses.asdict(fill_config(dataclasses.replace(config, optim=OptimConfig())).optim)
    steady = {
        "learning_rate": min(used["learning_rate"], known["learning_rate"]),
        "momentum": min(used["momentum"], known["momentum"]),
        "warmup_steps": max(used["warmup_steps"], known["warmup_steps"]),
        "clip_norm": min(filter(None, (used["clip_norm"], known["clip_norm"])), default=0.0),  # 0: none
        "feature_scale": known["feature_scale"],
    }
    flags = [f"--optim.{name.replace('_', '-')} {value:g}" for name, value in steady.items() if value != used[name]]
    if flags and config.optim.reduction == "mean":
        return f"{config.model.backbone} is steadier on {config.data.name} with {' '.join(flags)}"
    return f"give --optim.learning-rate {used['learning_rate'] / 10:g}"
