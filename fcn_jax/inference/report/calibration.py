"""Calibration: whether the confidence of a network is the share of its pixels that are right.

Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2. The confidence of a
pixel is the probability of its predicted class.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, Int32, UInt8

from fcn_jax.config import InputConfig
from fcn_jax.data.canvas import Batch
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import split_maps, split_scores
from fcn_jax.inference.segment import Forward, Scored, compute_logits
from fcn_jax.layers.backend import jit_options
from fcn_jax.models.build import Network
from fcn_jax.models.tasks import choose_classes, count_by_task, sum_cross_entropy

BINS = 15  # of equal width, as in the paper's tables


class Bins(NamedTuple):
    """Pixels by their confidence; bin i has those above i / BINS, up to (i + 1) / BINS.

    Attributes:
        pixels: number of labelled pixels.
        right: number of those that are predicted correctly.
        confidence: sum of the confidences.
    """

    pixels: Any
    right: Any
    confidence: Any


class Calibration(NamedTuple):
    """A reliability diagram.

    Attributes:
        share: share of the labelled pixels in each bin.
        accuracy: share of the bin's pixels that are right; NaN in an empty bin.
        confidence: mean confidence of the bin's pixels; NaN in an empty bin.
        error: expected calibration error, 0 to 1: the mean over all pixels of the distance between accuracy and mean
            confidence of their bin; NaN without pixels.
    """

    share: Float64[np.ndarray, "bins"]
    accuracy: Float64[np.ndarray, "bins"]
    confidence: Float64[np.ndarray, "bins"]
    error: float


CountingForward = Callable[[Any, Batch], tuple[Scored, Bins]]


def make_counting_forward(model: Network, input_config: InputConfig) -> CountingForward:
    """Make the jitted function of `segment.make_forward` that also counts the batch's pixels by their confidence.

    Counting on the device keeps the probabilities there, which are much larger than class maps. Of several tasks the
    pixels of the first one are counted.
    """
    counts = count_by_task(model)

    @partial(jax.jit, **jit_options(training=False))
    def forward(variables: Any, batch: Batch) -> tuple[Scored, Bins]:
        logits, label = compute_logits(model, input_config, variables, batch)
        class_map = choose_classes(logits, counts)
        scored = Scored(class_map, *sum_cross_entropy(logits, label, counts))
        first = (split_maps(maps, len(counts))[0] for maps in (class_map, label))
        return scored, count_confidences(split_scores(logits, counts)[0], *first)

    return forward


def count_confidences(
    logits: Float[Array, "*pixels classes"], class_map: UInt8[Array, "*pixels"], label: UInt8[Array, "*pixels"]
) -> Bins:
    """Count labelled pixels by their confidence, the softmax of their highest logit."""
    confidence = jnp.exp(-jax.nn.logsumexp(logits - logits.max(axis=-1, keepdims=True), axis=-1))
    index = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    labelled = label != IGNORE

    def total(values: Float[Array, "*pixels"] | Int[Array, "*pixels"]) -> jax.Array:
        # A sum for each bin, which XLA fuses; it scatters one by one on CPUs.
        return jnp.stack([jnp.where(index == i, values, jnp.zeros_like(values)).sum() for i in range(BINS)])

    right: Int32[Array, "*pixels"] = (labelled & (class_map == label)).astype(jnp.int32)
    return Bins(total(labelled.astype(jnp.int32)), total(right), total(jnp.where(labelled, confidence, 0.0)))


def record_bins(forward: CountingForward, bins: list[Bins]) -> Forward:
    """Make the function for `segment` that appends the counts of each batch to a list."""

    def record(variables: Any, batch: Batch) -> Scored:
        scored, counts = forward(variables, batch)
        bins.append(counts)
        return scored

    return record


def calibrate(bins: list[Bins]) -> Calibration:
    """Compute the reliability diagram of all batches; float32 sums of single batches are added in float64."""
    sums = np.zeros((3, BINS))
    for batch in bins:
        sums += np.stack([np.asarray(values, np.float64) for values in batch])
    pixels, right, confidence = sums
    empty = np.full(BINS, np.nan)
    accuracy = np.divide(right, pixels, out=empty.copy(), where=pixels > 0)
    mean = np.divide(confidence, pixels, out=empty.copy(), where=pixels > 0)
    count = pixels.sum()
    share = pixels / max(count, 1)
    error = float(np.nansum(share * np.abs(accuracy - mean))) if count else float("nan")
    return Calibration(share, accuracy, mean, error)
