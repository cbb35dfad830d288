"""What the scores of a network mean, for each of its tasks: classes, probabilities and loss.

The scores of several tasks have the classes of all tasks side by side, as `FCN.tasks` says.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, UInt8

from fcn_jax.data.tasks import split_maps, split_scores
from fcn_jax.models.losses import cross_entropy


def count_by_task(model: Any) -> tuple[int, ...]:
    """Return the number of classes of each task of a network: its attributes `tasks`, or `num_classes` alone."""
    return model.tasks or (model.num_classes,)


def choose_classes(scores: Float[Array, "*pixels classes"], counts: Sequence[int]) -> UInt8[Array, "*class_map"]:
    """Choose the class with the highest score at each pixel.

    Args:
        scores: logits or probabilities.
        counts: number of classes of each task.

    Returns:
        Class indices, [*pixels], or with several tasks [*pixels, tasks].
    """
    maps = [part.argmax(axis=-1).astype(jnp.uint8) for part in split_scores(scores, counts)]
    return maps[0] if len(maps) == 1 else jnp.stack(maps, axis=-1)


def compute_probabilities(
    logits: Float[Array, "*pixels classes"], counts: Sequence[int]
) -> Float[Array, "*pixels classes"]:
    """Compute the probabilities of the classes, which have a sum of 1 in each task (softmax)."""
    shares = [jax.nn.softmax(part) for part in split_scores(logits, counts)]
    return shares[0] if len(shares) == 1 else jnp.concatenate(shares, axis=-1)


def sum_cross_entropy(
    logits: Float[Array, "*pixels classes"],
    label: Integer[Array, "*class_map"],
    counts: Sequence[int],
    class_weights: Float[Array, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum the cross-entropy of all tasks over their labelled pixels, as in the reference's siftflow-fcn8s/net.py.

    The weight is the mean of the tasks' weights. So `total / weight` is the sum of the tasks' mean losses if they have
    the same labelled pixels, and all labelled pixels count the same otherwise.

    Args:
        logits: scores of all tasks.
        label: class of each pixel, or `IGNORE`; with several tasks [*pixels, tasks].
        counts: number of classes of each task.
        class_weights: as in `cross_entropy`, those of all tasks side by side as the scores are.
        label_smoothing: as in `cross_entropy`.

    Returns:
        (total, weight): the weighted sum, in nats, and the mean over the tasks of the sum of the pixels' weights.
    """
    compute = partial(cross_entropy, label_smoothing=label_smoothing)
    weights = (None,) * len(counts) if class_weights is None else split_scores(class_weights, counts)
    parts = zip(split_scores(logits, counts), split_maps(label, len(counts)), weights, strict=True)
    (total, weight), *others = (compute(*part) for part in parts)
    for more, more_weight in others:
        total, weight = total + more, weight + more_weight
    return total, weight / len(counts) if others else weight
