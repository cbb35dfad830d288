"""What a training would need, told without training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fcn_jax.config import Config
from fcn_jax.data.batches import place, train_canvas
from fcn_jax.inference.segment import Forward, choose_canvas, limit_batch_size
from fcn_jax.runtime.memory import format_bytes, read_memory
from fcn_jax.training.progress import overview
from fcn_jax.training.state import TrainState


def report(
    config: Config,
    step: Callable[[Config], Any],
    forward: Forward,
    state: TrainState,
    sharding: NamedSharding,
    max_size: tuple[int, int],
    eval_batch_size: int,
) -> str:
    """Parameters, operations of a training step, and memory of a step and of the largest evaluation.

    Args:
        config: a resolved configuration.
        step: the jitted step of a configuration, `train.make_step` with its network.
        forward: from `segment.make_forward`.
        state: shapes of a state.
        sharding: of training batches.
        max_size: the largest height and the largest width of all images.
        eval_batch_size: images at once in evaluation.
    """
    devices = sharding.num_devices
    canvas = train_canvas(max_size, config)
    batch = place([], config.batch_size, canvas, None if canvas == max_size else lambda index, size: (0, 0))
    given = _on(NamedSharding(sharding.mesh, PartitionSpec()), state), _on(sharding, batch)
    training = step(config).lower(*given)
    # A loop over parts counts as one of them; computed at once they are as many operations.
    at_once = dataclasses.replace(config, accumulate=1)
    whole = training if config.accumulate == 1 else step(at_once).lower(*given)
    operations = _flops(whole)
    parts = f", in {config.accumulate} parts" if config.accumulate > 1 else ""

    local = Mesh(np.array(jax.local_devices()), ("data",))
    canvas = choose_canvas(*max_size)
    count = limit_batch_size(eval_batch_size, local.size, canvas)
    images = _on(NamedSharding(local, PartitionSpec("data")), place([], count, canvas))
    variables = _on(NamedSharding(local, PartitionSpec()), state.variables)
    evaluation = forward.lower(variables, images)  # pyright: ignore[reportFunctionMemberAccess]
    momentum = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    return "\n".join(
        [
            overview(state.variables["params"]),
            f"dry run for {devices} device{'s' * (devices > 1)} ({jax.devices()[0].device_kind}), "
            f"{config.model.dtype}: nothing is trained or written",
            f"training step, {config.batch_size} images{parts}, crops of {config.augment.crop}x{config.augment.crop}: "
            f"{operations / 1e9:.1f} GFLOP, {operations / 1e9 / config.batch_size:.2f} an image",
            f"  memory: {read_memory(training.compile())}",
            f"evaluation, {count} image{'s' * (count > 1)} on the largest canvas, {canvas[1]}x{canvas[0]}: "
            f"{_flops(evaluation) / 1e9:.1f} GFLOP",
            f"  memory: {read_memory(evaluation.compile())}, and while training {format_bytes(momentum)} of momentum",
        ]
    )


def _flops(program: jax.stages.Lowered) -> float:
    """Floating-point operations over all devices, as it is written: loops once, on CPUs with what Winograd saves."""
    costs: Any = program.cost_analysis()
    return costs["flops"]


def _on(sharding: NamedSharding, tree: Any) -> Any:
    """Shapes of the same arrays, with this sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
