"""All that a training step changes: made anew, or read from a checkpoint."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding

from fcn_jax.config import Config
from fcn_jax.models.build import Network, init_variables
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.training.optim import optimizer


class TrainState(struct.PyTreeNode):
    """All that a step changes.

    Attributes:
        step: int32[], steps taken.
        variables: "params", float32, and for networks with BatchNorm "batch_stats".
        opt_state: of the optimizer.
    """

    # Not annotated by shape: JAX also builds it of shapes and shardings.
    step: Any
    variables: dict[str, Any]
    opt_state: optax.OptState


def init_state(model: Network, config: Config) -> TrainState:
    """The state before the first step; the same for the same seed."""
    variables = init_variables(model, config.seed)
    opt_state = optimizer(config.optim, config.steps).init(variables["params"])
    return TrainState(jnp.zeros((), jnp.int32), variables, opt_state)


def restore_or_init(
    checkpoints: Checkpoints, init: Callable[[], TrainState], sharding: NamedSharding
) -> tuple[TrainState, int]:
    """The state of the latest checkpoint, or a new one, and the number of steps it has behind it."""
    step = checkpoints.latest()
    if step is None:
        return init(), 0
    shapes = jax.eval_shape(init)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
    restored = checkpoints.restore(step, {"variables": like.variables, "optimizer": like.opt_state})
    counter = jax.device_put(jnp.asarray(step, jnp.int32), sharding)
    return TrainState(counter, restored["variables"], restored["optimizer"]), step
