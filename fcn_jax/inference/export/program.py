"""The function that is exported: from images of any size to class maps, with everything in it that belongs to it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.tasks import split_maps, split_scores
from fcn_jax.models.build import Network
from fcn_jax.models.tasks import choose_classes, compute_probabilities

# Sides of canvases are multiples of it, as the strides of the networks are its divisors.
MULTIPLE = 32

Scores = Callable[[Any, Any, Any], Any]


def make_scores(model: Network, input_config: InputConfig) -> Scores:
    """Make the function (variables, canvas, size) -> logits.

    Args:
        model: the network.
        input_config: the colour order, mean and standard deviation that it expects.

    Returns:
        A function of the variables, of a canvas [batch, 32 * m, 32 * n, channels] that shows an image at its top left,
        and of the image's size, int32[batch, 2]. Its result is float32[batch, 32 * m, 32 * n, classes].
    """

    def scores(
        variables: Any, canvas: Integer[Array, "batch height width channels"], size: Int[Array, "batch 2"]
    ) -> Float[Array, "batch height width classes"]:
        return model.apply(variables, normalise(canvas, input_config), size)  # pyright: ignore[reportReturnType]

    return scores


def make_program(
    scores: Scores, variables: Any, counts: Sequence[int], probabilities: bool
) -> Callable[[Any], tuple[Any, ...]]:
    """Make the function from images [batch, height, width, channels], of any size, to their class maps.

    Args:
        scores: from `make_scores`.
        variables: parameters and batch statistics, which become part of the function.
        counts: number of classes of each task.
        probabilities: whether to return the probabilities of each task, too.

    Returns:
        A function whose results are the class map of each task, uint8[batch, height, width], and then the probabilities
        of each task, float32[batch, height, width, classes].
    """

    def program(image: Integer[Array, "batch height width channels"]) -> tuple[Any, ...]:
        batch, *sides, _ = image.shape
        rows, columns = ((-(-side // MULTIPLE)) * MULTIPLE - side for side in sides)
        canvas = jnp.pad(image, ((0, 0), (0, rows), (0, columns), (0, 0)))
        size = jnp.stack([jnp.asarray(side, jnp.int32) for side in sides])
        logits = scores(variables, canvas, jnp.broadcast_to(size, (batch, 2)))
        logits = jax.lax.slice(logits, (0, 0, 0, 0), (batch, *sides, logits.shape[-1]))
        class_maps = split_maps(choose_classes(logits, counts), len(counts))
        shares = split_scores(compute_probabilities(logits, counts), counts) if probabilities else ()
        return (*class_maps, *shares)

    return program
