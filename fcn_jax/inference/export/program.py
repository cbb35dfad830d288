"""The function that is exported: from images of any size to class maps, with everything in it that belongs to it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.models.build import Network

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


def make_program(scores: Scores, variables: Any, probabilities: bool) -> Callable[[Any], tuple[Any, ...]]:
    """Make the function from images [batch, height, width, channels], of any size, to their class maps.

    Args:
        scores: from `make_scores`.
        variables: parameters and batch statistics, which become part of the function.
        probabilities: whether to return float32[batch, height, width, classes], too.

    Returns:
        A function whose first result is uint8[batch, height, width].
    """

    def program(image: Integer[Array, "batch height width channels"]) -> tuple[Any, ...]:
        batch, *sides, _ = image.shape
        rows, columns = ((-(-side // MULTIPLE)) * MULTIPLE - side for side in sides)
        canvas = jnp.pad(image, ((0, 0), (0, rows), (0, columns), (0, 0)))
        size = jnp.stack([jnp.asarray(side, jnp.int32) for side in sides])
        logits = scores(variables, canvas, jnp.broadcast_to(size, (batch, 2)))
        logits = jax.lax.slice(logits, (0, 0, 0, 0), (batch, *sides, logits.shape[-1]))
        class_map = logits.argmax(axis=-1).astype(jnp.uint8)
        return (class_map, jax.nn.softmax(logits)) if probabilities else (class_map,)

    return program
