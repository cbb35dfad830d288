"""Stochastic gradient descent as Caffe and PyTorch define it, in optax, with rates by groups of parameters."""

import difflib
import math
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import optax

from fcn_jax.config import OptimConfig
from fcn_jax.errors import InputError


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
    PyTorch the rate multiplies the velocity; Caffe has it inside, which differs only where the rate changes. Each
    parameter has its own factor on the rate (`rate_factor`). Frozen ones have no velocity, no decay and no part in the
    norm that clipping looks at, like PyTorch's without `requires_grad`.
    """
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    grouped = config.rate_factors or config.bias_factor != 1
    trained = optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(learning_rate(config, steps), momentum=config.momentum),
        *([optax.stateless(lambda updates, _: _map(partial(_scaled, config), updates))] if grouped else []),
    )
    if not config.frozen:
        return trained
    parts: dict[Hashable, optax.GradientTransformation] = {"trained": trained, "frozen": optax.set_to_zero()}
    return optax.partition(parts, partial(_map, lambda path, _: "frozen" if is_frozen(config, path) else "trained"))


def is_frozen(config: OptimConfig, path: str) -> bool:
    """Whether the parameter of this path, "backbone/conv1/kernel", stays as it is."""
    return path.startswith(config.frozen)


def rate_factor(config: OptimConfig, path: str) -> float:
    """What the rate of this parameter is multiplied with: all factors that fit it."""
    fitting = [factor for beginning, factor in config.rate_factors if path.startswith(beginning)]
    return math.prod(fitting) * (config.bias_factor if path.endswith("/bias") else 1.0)


def held(config: OptimConfig, params: Any) -> Any:
    """The same parameters; no gradient is computed of the frozen ones, it is zero."""
    return _map(lambda path, x: jax.lax.stop_gradient(x) if is_frozen(config, path) else x, params)


def check_groups(config: OptimConfig, params: Any) -> None:
    """Finds beginnings of paths that no parameter has.

    Args:
        config: of the groups.
        params: arrays or their shapes.

    Raises:
        InputError: there is one, or nothing is left to train.
    """
    paths: list[str] = []
    _map(lambda path, _: paths.append(path), params)
    named = [("frozen", name) for name in config.frozen]
    named += [("rate-factors", name) for name, _ in config.rate_factors]
    for flag, name in named:
        if not any(path.startswith(name) for path in paths):
            modules = [path.rsplit("/", 1)[0].split("/") for path in paths]
            beginnings = {"/".join(names[:depth]): None for names in modules for depth in (1, 2)}
            near = difflib.get_close_matches(name, beginnings, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"optim.{flag} names {name!r}, and no parameter's path begins like that; "
                f"they begin with {', '.join(beginnings)}{hint}"
            )
    if all(is_frozen(config, path) for path in paths):
        raise InputError(f"optim.frozen is {config.frozen}, which is every parameter; leave some to be trained")


def _scaled(config: OptimConfig, path: str, update: jax.Array) -> jax.Array:
    return update * rate_factor(config, path)


def _map(function: Callable[[str, Any], Any], params: Any) -> Any:
    """A tree of what `function` makes of each parameter and its path, "backbone/conv1/kernel"."""
    return jax.tree_util.tree_map_with_path(lambda path, x: function("/".join(key.key for key in path), x), params)
