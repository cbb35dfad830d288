"""Cross-entropy over the labelled pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from fcn_jax.data.labels import IGNORE


def cross_entropy(
    logits: Float[Array, "*pixels classes"],
    label: Integer[Array, "*pixels"],
    class_weights: Float[Array, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums the cross-entropy of all pixels whose label is not `IGNORE`.

    The sum and the weight come apart so that any split of a batch, over devices or over accumulation steps, adds up
    to the same loss: the mean is `total / weight`, the reference's loss is `total`. With class weights and
    smoothing as in PyTorch's `cross_entropy`: each pixel's one-hot label is mixed with `label_smoothing / classes`,
    each class's term multiplied by its weight; the weight of a pixel is that of its label.

    Args:
        logits: unnormalised scores.
        label: class of each pixel, 0..classes-1, or `IGNORE`.
        class_weights: factor a class, all 1 when None.
        label_smoothing: 0..1.

    Returns:
        (total, weight): the weighted sum, in nats, and the sum of the pixels' weights; both 0 where all is void.
    """
    num_classes = logits.shape[-1]
    valid = label != IGNORE
    # Void pixels are pointed at class 0, whose loss is finite: no mask removes NaN or infinity from a gradient.
    index = jnp.where(valid, label, 0).astype(jnp.int32)
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32))
    # Picked by comparison: the gradient of an indexed choice is a scatter into an array of zeros, this one's is fused.
    chosen = jax.nn.one_hot(index, num_classes, dtype=bool)
    loss = -jnp.where(chosen, log_probability, 0.0).sum(axis=-1)
    weight = jnp.ones_like(loss)
    if class_weights is not None:
        weight = jnp.take(class_weights, index)
        loss = loss * weight
    if label_smoothing:
        if class_weights is not None:
            log_probability = log_probability * class_weights.reshape((1,) * label.ndim + (-1,))
        spread = -log_probability.sum(axis=-1) / num_classes
        loss = (1 - label_smoothing) * loss + label_smoothing * spread
    return jnp.where(valid, loss, 0.0).sum(), jnp.where(valid, weight, 0.0).sum()
