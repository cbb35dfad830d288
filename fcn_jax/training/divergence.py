"""Find the step, the images and the first value at which a training has diverged."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from fcn_jax.data.batches import order_batches, train_batches
from fcn_jax.data.canvas import Batch
from fcn_jax.training.setup import Setup
from fcn_jax.training.state import TrainState
from fcn_jax.training.step import Part, split_batch, sum_loss

NAMED = 8  # images that a text names


class Place(NamedTuple):
    """The first tensor with a value that is not finite.

    Attributes:
        tensor: what it is.
        images: numbers of the images in the batch whose part of it is not finite; empty: it is not one of images.
    """

    tensor: str
    images: list[int]


def find_first_bad(metrics: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the first metrics that are not finite; None: all are finite.

    A training that has diverged does not recover, so the others are read only if the last ones are not finite.
    """
    if is_finite(metrics[-1]):
        return None
    return next(index for index, values in enumerate(jax.device_get(list(metrics))) if not is_finite(values))


def is_finite(metrics: Mapping[str, Any]) -> bool:
    """Return whether the loss and the norm of the gradient are finite."""
    return all(math.isfinite(value) for value in metrics.values())


def list_images(setup: Setup, step: int) -> list[str]:
    """List the names of the images of a step, in the order of its batch."""
    config = setup.config
    assert config.batch_size is not None
    indices = order_batches(len(setup.train_source), config.batch_size, config.seed)[step - 1]
    assert indices is not None
    return [setup.train_source[int(index)].name for index in indices]


def describe_images(setup: Setup, step: int) -> str:
    """Describe the images of a step."""
    return f"Step {step} takes {_shorten(list_images(setup, step))}"


def describe_origin(setup: Setup, state: TrainState, first: int, step: int) -> str:
    """Take the steps up to a bad one again, and describe its images and its first value that is not finite.

    Args:
        setup: everything that the training needs.
        state: the state after step `first`. It is used up.
        first: the step of the last checkpoint; 0: there is none.
        step: the first step whose metrics are not finite.
    """
    batches = train_batches(
        setup.train_source, setup.dataset.max_size, setup.config, setup.options, first, setup.sharding
    )
    for _ in range(first + 1, step):
        state, _ = setup.step(state, next(batches))
    place, images = find_place(setup, state, next(batches)), list_images(setup, step)
    text = f"{describe_images(setup, step)}. Taken again from step {first}, "
    if place is None:
        return f"{text}all its values are finite, so the same step has two results: suspect the hardware"
    inside = [images[index] for index in place.images]
    where = "" if not inside else ", in all of them" if set(inside) == set(images) else f", in {_shorten(inside)}"
    return f"{text}its first value that is not finite is in {place.tensor}{where}"


def find_place(setup: Setup, state: TrainState, batch: Batch) -> Place | None:
    """Find the first tensor of a step that is not finite, in the order of computation; None: all are finite.

    Args:
        setup: everything that the training needs.
        state: the state before the step. It is used up.
        batch: the batch of the step.
    """
    variables = dict(state.variables)
    params = variables.pop("params")
    for path, finite in jax.device_get(flatten_dict(_check_arrays(params), sep="/")).items():
        if not finite:
            return Place(f"the parameter {path}, before the step", [])
    parts = jax.jit(partial(split_batch, config=setup.config))(state, batch)
    modules: list[str] = []
    compute = jax.jit(partial(_check_part, modules=modules, setup=setup), out_shardings=setup.everywhere)
    count = setup.config.accumulate
    split = [jax.tree.map(lambda x, number=number: x[number], parts) for number in range(count)]
    results = [jax.device_get(compute(params, variables, part)) for part in split]
    for total, outputs, gradient in results:
        for turn, (module, finite) in enumerate(zip(modules, outputs, strict=True)):
            if not finite.all():
                bad = [(number, ~others[turn]) for number, (_, others, _) in enumerate(results)]
                images = [int(index) * count + number for number, where in bad for index in np.flatnonzero(where)]
                return Place(f"the output of {module}", sorted(images))
        if not math.isfinite(total):
            return Place("the loss", [])
        bad = [path for path, finite in flatten_dict(gradient, sep="/").items() if not finite]
        if bad:  # the gradient is computed backwards
            return Place(f"the gradient of {max(bad, key=partial(_find_turn, modules))}", [])
    _, metrics = setup.step(state, batch)
    return None if is_finite(metrics) else Place("the norm of the gradient", [])


def _check_part(
    params: Any, statistics: Any, part: Part, *, modules: list[str], setup: Setup
) -> tuple[Array, Array, Any]:
    """Compute loss and gradient of a part of a batch.

    Returns:
        The loss; whether the output of each module, in the order of their calls, is finite for each image,
        bool[modules, images]; and whether each gradient is finite. `modules` is filled with their paths.
    """
    count = len(part[0])

    def compute(params: Any) -> tuple[Array, Array]:
        modules.clear()
        flags: list[Array] = []

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            results = call(*args, **kwargs)
            for array in jax.tree.leaves(results):
                if context.method_name == "__call__" and jnp.issubdtype(array.dtype, jnp.floating):
                    modules.append("/".join(context.module.path) or "the network")
                    flags.append(jnp.isfinite(array).reshape(count, -1).all(axis=1))
            return results

        with nn.intercept_methods(note):
            total, _ = sum_loss(params, statistics, part, model=setup.model, config=setup.config)
        return total, jnp.stack(flags)

    (total, outputs), gradient = jax.value_and_grad(compute, has_aux=True)(params)
    return total, outputs, _check_arrays(gradient)


def _check_arrays(tree: Any) -> Any:
    """Return for each array of a tree whether it is finite."""
    return jax.tree.map(lambda array: jnp.isfinite(array).all(), tree)


def _find_turn(modules: Sequence[str], path: str) -> int:
    """Return the place of a parameter's module in the order of the calls, -1 if it was not called itself."""
    module = path.rsplit("/", 1)[0]
    return max((turn for turn, called in enumerate(modules) if called == module), default=-1)


def _shorten(names: Sequence[str]) -> str:
    """List different names, at most `NAMED` of them."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - NAMED} more" if len(different) > NAMED else ""
    return ", ".join(different[:NAMED]) + more
