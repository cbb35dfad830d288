"""Stochastic gradient descent as Caffe and PyTorch define it, in optax."""

from typing import Any

import jax
import optax

from fcn_jax.config import OptimConfig


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """The rate of each step: warm-up by equal increments, then poly or constant.

    With w warm-up steps, step t < w has rate (t + 1) / (w + 1); after it poly has (1 - (t - w) / (steps - w)) ** power.

    Args:
        config: a resolved configuration.
        steps: optimizer steps of the whole run.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "poly":
        main = optax.polynomial_schedule(peak, 0.0, config.power, max(steps - warmup, 1))
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, main], [warmup])


def decayed(params: Any) -> Any:
    """Which parameters weight decay pulls on: kernels, not biases, not the scales and shifts of norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """SGD with momentum: v <- momentum v + (g + decay w), w <- w - rate v.

    The decay is added to the gradient, before momentum, as in Caffe and PyTorch (not decoupled as in AdamW). As in
    PyTorch the rate multiplies the velocity; Caffe has it inside, which differs only where the rate changes.
    """
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate(config, steps), momentum=config.momentum),
    )
