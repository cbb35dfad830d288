"""Describe what a training needs, without training."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fcn_jax.config import Config
from fcn_jax.data.augment import draw_changes
from fcn_jax.data.batches import train_canvas
from fcn_jax.data.canvas import Batch, make_empty_batch
from fcn_jax.inference.segment import default_batch_size, limit_batch_size
from fcn_jax.inference.tiles import choose_canvas
from fcn_jax.layers.backend import count_local_devices
from fcn_jax.runtime.memory import format_bytes, read_memory
from fcn_jax.runtime.operations import count_flops
from fcn_jax.training.progress import format_parameters
from fcn_jax.training.setup import Setup


def describe_needs(setup: Setup) -> str:
    """Describe the parameters, and the operations and memory of a training step and of an evaluation.

    The evaluation is of one batch of the largest images, or of tiles of them. Weights and images that are not there are
    named first.
    """
    config, sharding, max_size = setup.config, setup.sharding, setup.dataset.max_size
    assert config.batch_size is not None
    images_have = config.model.input_or_default
    state = jax.eval_shape(setup.init)
    tasks = len(setup.dataset.tasks)
    batch = _make_batch(config, max_size, tasks)
    given = _describe_arrays(setup.everywhere, state), _describe_arrays(sharding, batch)
    training = setup.step.trace(*given)
    operations = count_flops(training.jaxpr.jaxpr)
    parts = f", in {config.accumulate} parts" if config.accumulate > 1 else ""

    local = Mesh(np.array(jax.local_devices()), ("data",))
    canvas = choose_canvas(*max_size, tiling=setup.tiling)
    count = limit_batch_size(default_batch_size(setup.options.eval_batch_size), count_local_devices(), canvas)
    empty = make_empty_batch(count, canvas, images_have.num_channels, images_have.dtype, tasks)
    empty = empty._replace(origin=empty.size)
    images = _describe_arrays(NamedSharding(local, PartitionSpec("data")), empty)
    variables = _describe_arrays(NamedSharding(local, PartitionSpec()), state.variables)
    evaluation = setup.forward.trace(variables, images)  # pyright: ignore[reportFunctionMemberAccess]
    momentum = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    devices, crop = sharding.num_devices, config.augment.crop
    return "\n".join(
        [
            *_list_unread(setup),
            format_parameters(state.variables["params"]),
            f"dry run for {devices} device{'s' * (devices > 1)} ({jax.devices()[0].device_kind}), "
            f"{config.model.dtype}: nothing is trained or written",
            f"training step, {config.batch_size} images{parts}, crops of {crop}x{crop}: "
            f"{operations / 1e9:.1f} GFLOP, {operations / 1e9 / config.batch_size:.2f} an image",
            f"  memory: {read_memory(training.lower().compile())}",
            f"evaluation, {count} image{'s' * (count > 1)} on the largest canvas, {canvas[1]}x{canvas[0]}: "
            f"{count_flops(evaluation.jaxpr.jaxpr) / 1e9:.1f} GFLOP",
            f"  memory: {read_memory(evaluation.lower().compile())}, "
            f"and while training {format_bytes(momentum)} of momentum",
        ]
    )


def _list_unread(setup: Setup) -> list[str]:
    """List what a training would read and the dry run did not."""
    dataset, model = setup.dataset, setup.config.model
    height, width = dataset.max_size
    lines = []
    if not any(dataset.splits.values()):
        classes = " and ".join(str(len(task.class_names)) for task in dataset.tasks)
        lines.append(
            f"{dataset.name} was not read: its {classes} classes and images of up to {width}x{height} are assumed; "
            "give --data.dir to check its files"
        )
    weights = [model.weights] if model.weights else list(map(str, model.start_places))
    if weights and setup.start is None and setup.resume_step is None:
        lines.append(f"the weights {' and '.join(weights)} were not read, so it is open whether they fit")
    return lines


def _make_batch(config: Config, max_size: tuple[int, int], tasks: int) -> Batch:
    """Make a training batch without images, of the shapes of those in training."""
    assert config.batch_size is not None
    canvas, count, given = train_canvas(max_size, config), config.batch_size, config.model.input_or_default
    batch = make_empty_batch(count, canvas, given.num_channels, given.dtype, tasks)
    changes = draw_changes(config.seed, 0, np.asarray(batch.size), 0, count, config.augment)
    return batch._replace(changes=changes, origin=None if canvas == max_size else batch.size)


def _describe_arrays(sharding: NamedSharding, tree: Any) -> Any:
    """Describe arrays by their shapes and types, with this sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
