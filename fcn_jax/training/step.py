"""The training step: a pure function of a state and a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from fcn_jax.config import Config
from fcn_jax.data.augment import augment, step_keys
from fcn_jax.data.canvas import Batch
from fcn_jax.layers.backend import jit_options
from fcn_jax.models.build import Network
from fcn_jax.models.tasks import count_by_task, sum_cross_entropy
from fcn_jax.runtime.traced import keep_traced
from fcn_jax.training.optim import make_optimizer, stop_frozen_gradients
from fcn_jax.training.state import TrainState

Part = tuple[Array, Array, Array]  # images, labels and the key of dropout


def train_step(
    state: TrainState, batch: Batch, *, model: Network, config: Config
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Take one step of SGD on a batch.

    Under `jax.jit`, with the batch sharded over devices, the loss, the gradient and the statistics of batch norms are
    those of the global batch; XLA adds the communication.

    Args:
        state: the state before the step.
        batch: images on canvases with the changes drawn for them.
        model: the network; it returns one map of logits, and auxiliary ones if it `has_auxiliary_scores`.
        config: configuration with every value set (`fill_config`).

    Returns:
        The state after the step, and its "loss" (before the update) and "gradient_norm".
    """

    def add_part(sums: Any, part: Part) -> tuple[Any, None]:
        gradient, total, weight, statistics = sums
        differentiated = jax.value_and_grad(partial(sum_loss, model=model, config=config), has_aux=True)
        (part_total, (part_weight, statistics)), part_gradient = differentiated(params, statistics, part)
        gradient = jax.tree.map(jnp.add, gradient, part_gradient)
        return (gradient, total + part_total, weight + part_weight, statistics), None

    params = state.variables["params"]
    statistics = {name: value for name, value in state.variables.items() if name != "params"}
    sums = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()), statistics)
    parts = split_batch(state, batch, config)
    if config.accumulate == 1:
        sums, _ = add_part(sums, jax.tree.map(lambda x: x[0], parts))
    else:
        sums, _ = jax.lax.scan(add_part, sums, parts)
    gradient, total, weight, statistics = sums

    # A batch that is all void has the weight 0 and the sum 0; dividing it by 1 keeps it 0.
    scale = 1 / jnp.where(weight > 0, weight, 1.0) if config.optim.reduction == "mean" else jnp.ones(())
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    updates, opt_state = make_optimizer(config).update(gradient, state.opt_state, params)
    variables = {"params": optax.apply_updates(params, updates), **statistics}
    metrics = {"loss": total * scale, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, variables, opt_state), metrics


def split_batch(state: TrainState, batch: Batch, config: Config) -> Part:
    """Augment a batch, and split it into the parts that are computed one after the other, along a new first axis."""
    image, label, size, changes, origin = jax.tree.map(jnp.asarray, batch)
    augment_one = partial(augment, config=config.augment, input_config=config.model.input_or_default)
    images, labels = jax.vmap(augment_one)(image, label, size, changes, origin)
    _, key = step_keys(config.seed, state.step, len(images))
    parts = config.accumulate
    if parts == 1:
        return images[None], labels[None], key[None]
    # A part takes every parts-th image, so that each device computes the images it already has.
    images, labels = (jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0) for x in (images, labels))
    return images, labels, jax.random.split(key, parts)


def sum_loss(
    params: Any, statistics: Any, part: Part, *, model: Network, config: Config
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Any]]:
    """Sum the loss of a part of a batch over its pixels, and over the tasks.

    Args:
        params: the parameters; the frozen ones have no gradient.
        statistics: the other variables, those of batch norms.
        part: images, labels and the key of dropout.
        model: the network.
        config: configuration with every value set (`fill_config`).

    Returns:
        The sum; the sum of the pixels' weights; and the new statistics.
    """
    images, labels, key = part
    apply = partial(model.apply, return_aux=True) if model.has_auxiliary_scores else model.apply
    scores, updates = apply(
        {"params": stop_frozen_gradients(config.optim, params), **statistics},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
    )
    class_weights = None if config.optim.class_weights is None else jnp.array(config.optim.class_weights)
    loss = partial(
        sum_cross_entropy,
        counts=count_by_task(model),
        class_weights=class_weights,
        label_smoothing=config.optim.label_smoothing,
    )
    logits, *auxiliary = scores if model.has_auxiliary_scores else (scores,)
    total, weight = loss(logits, labels)
    for logits in auxiliary:
        total += config.optim.auxiliary_weight * loss(logits, labels)[0]
    return total, (weight, {**statistics, **updates})


def make_step(model: Network, config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Make the jitted `train_step`, which reuses the memory of the state that it is given."""
    step = keep_traced(partial(train_step, model=model, config=config), model, config)
    return jax.jit(step, donate_argnums=0, **jit_options())
