"""The state that a training step changes: initialised, saved, and restored from a checkpoint."""

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
from fcn_jax.training.optim import make_optimizer


class TrainState(struct.PyTreeNode):
    """The state that a training step changes.

    Attributes:
        step: int32[], the number of steps taken.
        variables: "params", float32, and for networks with batch norm "batch_stats".
        opt_state: the optimizer's state.
    """

    # The fields have no shapes, because JAX also builds this class from shapes and from shardings.
    step: Any
    variables: dict[str, Any]
    opt_state: optax.OptState


def init_state(model: Network, config: Config) -> TrainState:
    """Initialise the state before the first step, a function of the model and the configuration with its seed."""
    variables = init_variables(model, config.seed, config.model.input_or_default.num_channels)
    return TrainState(jnp.zeros((), jnp.int32), variables, make_optimizer(config).init(variables["params"]))


def save_state(checkpoints: Checkpoints, state: TrainState, step: int) -> None:
    """Save the state after `step` steps in the background."""
    checkpoints.save(step, {"variables": state.variables, "opt_state": state.opt_state})


def restore_state(
    checkpoints: Checkpoints, step: int, init: Callable[[], TrainState], sharding: NamedSharding
) -> TrainState:
    """Restore the state of a checkpoint.

    Args:
        checkpoints: checkpoints of the run.
        step: step of one of them.
        init: function that initialises a state of the same shapes.
        sharding: sharding of every array.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another network.
    """
    shapes = jax.eval_shape(init)
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
    restored = checkpoints.restore(step, {"variables": like.variables, "opt_state": like.opt_state})
    return TrainState(jax.device_put(jnp.asarray(step, jnp.int32), sharding), **restored)
