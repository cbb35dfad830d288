"""Stochastic gradient descent in optax, as Caffe and PyTorch define it, with a rate for each group of parameters."""

import math
from collections.abc import Callable, Hashable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fcn_jax.config import Config, OptimConfig
from fcn_jax.errors import InputError, suggest_nearest


def make_schedule(config: Config) -> optax.Schedule:
    """Make the learning rate as a function of the step: a linear warm-up, then poly or constant.

    With w warm-up steps, step t < w has the rate (t + 1) / (w + 1) times the highest. After the warm-up poly has
    (1 - (t - w) / (end - w)) ** power times the highest. The end is the first of `config.ends` that is above t: an
    extension stretches the schedule over the new number of all steps, and does not change the steps before it. Each of
    the rate cuts halves the rate of all steps after it.

    Args:
        config: configuration with every value set (`fill_config`).
    """
    rate = _make_plain_schedule(config.optim, config.ends[0])
    for start, end in pairwise(config.ends):
        stretched = _make_plain_schedule(config.optim, end)
        rate = optax.join_schedules([rate, partial(_skip_steps, stretched, start)], [start])
    for cut in config.optim.rate_cuts:
        rate = partial(_halve_after, rate, cut)
    return rate


def _keep_apart(schedule: optax.Schedule) -> optax.Schedule:
    """Keep the code of a schedule apart from that of the step, so that another schedule changes no other bit."""
    return lambda step: jax.lax.optimization_barrier(jnp.asarray(schedule(step)))


def _skip_steps(schedule: optax.Schedule, skipped: int, step: Any) -> Any:
    return schedule(step + skipped)


def _halve_after(schedule: optax.Schedule, cut: int, step: Any) -> Any:
    return schedule(step) * jnp.where(jnp.asarray(step) < cut, 1.0, 0.5)


def _make_plain_schedule(optim: OptimConfig, end: int) -> optax.Schedule:
    """Make the schedule of a run of `end` steps that was never extended."""
    assert optim.learning_rate is not None
    assert optim.warmup_steps is not None
    peak, warmup = optim.learning_rate, optim.warmup_steps
    if optim.schedule == "poly":
        main = optax.polynomial_schedule(peak, 0.0, optim.power, max(end - warmup, 1))
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, main], [warmup])


def mask_decayed(params: Any) -> Any:
    """Return a tree of booleans that is True for the parameters with weight decay: the kernels."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Make SGD with momentum: v <- momentum v + (g + decay w), w <- w - rate v.

    The decay is added to the gradient before momentum, as in Caffe and PyTorch; in AdamW it is decoupled. As in PyTorch
    the rate multiplies the velocity. Caffe has the rate inside the velocity, which differs only where the rate changes.
    Each parameter has its own factor on the rate (`rate_factor`). Frozen parameters have no velocity and no decay, and
    clipping ignores their gradient, as with PyTorch's `requires_grad=False`.

    Clipping, decay, momentum and rate act on the parameters in the units of `unit`.

    Args:
        config: configuration with every value set (`fill_config`).
    """
    optim = config.optim
    assert optim.feature_scale is not None
    clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    grouped = optim.rate_factors or optim.bias_factor != 1
    trained = optax.chain(
        *clip,
        optax.add_decayed_weights(optim.weight_decay, mask=mask_decayed),
        optax.sgd(_keep_apart(make_schedule(config)), momentum=optim.momentum),
        *([optax.stateless(lambda updates, _: _map_paths(partial(_scale, optim), updates))] if grouped else []),
    )
    if optim.feature_scale != 1:
        trained = _optimize_in_units(trained, optim.feature_scale)
    if not optim.frozen:
        return trained
    parts: dict[Hashable, optax.GradientTransformation] = {"trained": trained, "frozen": optax.set_to_zero()}
    label = partial(_map_paths, lambda path, _: "frozen" if is_frozen(optim, path) else "trained")
    return optax.partition(parts, label)


def unit(feature_scale: float, path: str) -> float:
    """Return the unit in which a parameter is trained, if the features are `feature_scale` times as large as usual.

    Without batch norm the features grow with the input. If the input is c times as large, the network computes the same
    scores with c times the biases of the backbone and 1 / c times the kernels of the score layers. Plain gradient
    descent would learn those biases c squared times more slowly, and those kernels c squared times as fast, which
    diverges: c is 57.6 for the pixels 0 to 255 of Caffe's networks. In these units it takes the same steps as in the
    network whose input is normalised.
    """
    modules = path.split("/")[:-1]
    if "backbone" in modules[:2] and path.endswith("/bias"):  # late fusion has its backbones in streams
        return feature_scale
    if modules[-1:] and modules[-1].startswith("score") and path.endswith("/kernel"):
        return 1 / feature_scale
    return 1.0


def _optimize_in_units(optimizer: optax.GradientTransformation, feature_scale: float) -> optax.GradientTransformation:
    """Let the optimizer see each parameter divided by its unit: a gradient times the unit, and an update over it."""
    multiply = partial(_map_paths, lambda path, x: x * unit(feature_scale, path))
    divide = partial(_map_paths, lambda path, x: x / unit(feature_scale, path))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(multiply(updates), state, divide(params))
        return multiply(updates), state

    return optax.GradientTransformation(lambda params: optimizer.init(divide(params)), update)


def is_frozen(config: OptimConfig, path: str) -> bool:
    """Return whether the parameter of this path, such as "backbone/conv1/kernel", is not trained."""
    return path.startswith(config.frozen)


def rate_factor(config: OptimConfig, path: str) -> float:
    """Return the factor on the rate of the parameter of this path: the product of all factors that fit it."""
    fitting = [factor for beginning, factor in config.rate_factors if path.startswith(beginning)]
    return math.prod(fitting) * (config.bias_factor if path.endswith("/bias") else 1.0)


def stop_frozen_gradients(config: OptimConfig, params: Any) -> Any:
    """Return the same parameters, with no gradient to compute for the frozen ones."""
    return _map_paths(lambda path, x: jax.lax.stop_gradient(x) if is_frozen(config, path) else x, params)


def check_groups(config: OptimConfig, params: Any) -> None:
    """Check that every group of parameters named in the configuration exists.

    Args:
        config: configuration that names the groups by the beginnings of their paths.
        params: arrays or their shapes.

    Raises:
        InputError: a group has no parameter, or every parameter is frozen.
    """
    paths: list[str] = []
    _map_paths(lambda path, _: paths.append(path), params)
    named = [("frozen", name) for name in config.frozen]
    named += [("rate-factors", name) for name, _ in config.rate_factors]
    for flag, name in named:
        if not any(path.startswith(name) for path in paths):
            modules = [path.rsplit("/", 1)[0].split("/") for path in paths]
            beginnings = {"/".join(names[:depth]): None for names in modules for depth in (1, 2)}
            raise InputError(
                f"optim.{flag} names {name!r}, and no parameter's path begins with it; "
                f"the paths begin with {', '.join(beginnings)}{suggest_nearest(name, beginnings)}"
            )
    if all(is_frozen(config, path) for path in paths):
        raise InputError(f"optim.frozen is {config.frozen}, which is every parameter; leave some to be trained")


def _scale(config: OptimConfig, path: str, update: jax.Array) -> jax.Array:
    return update * rate_factor(config, path)


def _map_paths(function: Callable[[str, Any], Any], params: Any) -> Any:
    """Apply `function` to each parameter and its path, such as "backbone/conv1/kernel"."""
    return jax.tree_util.tree_map_with_path(lambda path, x: function("/".join(key.key for key in path), x), params)
