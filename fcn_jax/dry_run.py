"""What a training would need, told without training."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fcn_jax.config import Config
from fcn_jax.evaluate import Forward, _batch_size, canvas_of
from fcn_jax.input import Batch, place
from fcn_jax.needs import flops, memory, shapes_of, size
from fcn_jax.progress import overview
from fcn_jax.state import TrainState


def report(
    config: Config,
    step: Callable[..., Any],
    forward: Forward,
    state: TrainState,
    batch: Batch,
    sharding: NamedSharding,
    max_size: tuple[int, int],
    eval_batch_size: int,
) -> str:
    """Parameters, operations of a training step, and memory of a step and of the largest evaluation.

    Args:
        config: a resolved configuration.
        step: `train_step` with its network, not jitted.
        forward: from `evaluate.make_forward`.
        state: shapes of a state.
        batch: one to train on.
        sharding: its own.
        max_size: the largest height and the largest width of all images.
        eval_batch_size: images at once in evaluation.
    """
    devices = sharding.num_devices
    state, given = _on(NamedSharding(sharding.mesh, PartitionSpec()), state), shapes_of(batch)
    compiled = jax.jit(partial(step, config=config), donate_argnums=0)
    # A loop over parts counts as one of them; computed at once they are as many operations.
    whole = jax.jit(partial(step, config=dataclasses.replace(config, accumulate=1)))
    operations = flops(whole, state, given)
    parts = f", in {config.accumulate} parts" if config.accumulate > 1 else ""

    local = Mesh(np.array(jax.local_devices()), ("data",))
    canvas = canvas_of(*max_size)
    count = _batch_size(eval_batch_size, local.size, canvas)
    images = _on(NamedSharding(local, PartitionSpec("data")), place([], count, canvas))
    variables = _on(NamedSharding(local, PartitionSpec()), state.variables)
    momentum = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    return "\n".join(
        [
            overview(state.variables["params"]),
            f"dry run for {devices} device{'s' * (devices > 1)} ({jax.devices()[0].device_kind}), "
            f"{config.model.dtype}: nothing is trained or written",
            f"training step, {config.batch_size} images{parts}, crops of {config.augment.crop}x{config.augment.crop}: "
            f"{operations / 1e9:.1f} GFLOP, {operations / 1e9 / config.batch_size:.2f} an image",
            f"  memory: {memory(compiled, state, given)}",
            f"evaluation, {count} image{'s' * (count > 1)} on the largest canvas, {canvas[1]}x{canvas[0]}: "
            f"{flops(forward, variables, images) / 1e9:.1f} GFLOP",
            f"  memory: {memory(forward, variables, images)}, and while training {size(momentum)} of momentum",
        ]
    )


def _on(sharding: NamedSharding, tree: Any) -> Any:
    """Shapes of the same arrays, with this sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
