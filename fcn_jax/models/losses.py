"""Cross-entropy over labelled pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from fcn_jax.data.labels import IGNORE
from fcn_jax.layers.sizes import read_array


def cross_entropy(
    logits: Float[Array, "*pixels classes"],
    label: Integer[Array, "*pixels"],
    class_weights: Float[Array, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum the cross-entropy of all pixels whose label is not `IGNORE`.

    Sum and weight are returned apart, so that the parts of a batch, over devices or accumulation steps, add up to the
    loss of the whole batch. The mean is `total / weight`; the reference's loss is `total`. Class weights and smoothing
    are those of PyTorch's `cross_entropy`: the one-hot label of a pixel is mixed with `label_smoothing / classes`, the
    term of each class is multiplied by its weight, and the weight of a pixel is that of its label.

    Args:
        logits: unnormalized scores.
        label: class of each pixel, 0..classes-1, or `IGNORE`.
        class_weights: a factor per class; None means 1 for all.
        label_smoothing: share of the label that is spread over all classes, 0..1.

    Returns:
        (total, weight): the weighted sum, in nats, and the sum of the pixels' weights. Both are 0 if no pixel has a
        label.

    Raises:
        ValueError: shapes or types do not fit, or the smoothing is outside 0 to 1.
    """
    logits, label = read_array(logits, "logits", "[*pixels, classes]"), read_array(label, "label", "[*pixels]")
    num_classes = logits.shape[-1] if logits.ndim else 0
    if num_classes < 1 or label.shape != logits.shape[:-1] or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"logits have the shape {logits.shape} and label is {label.dtype}{list(label.shape)}; logits must be "
            "[*pixels, classes] with at least one class, and label integers [*pixels]"
        )
    if class_weights is not None:
        class_weights = read_array(class_weights, "class_weights", "[classes]")
        if class_weights.shape != (num_classes,):
            raise ValueError(
                f"class_weights have the shape {class_weights.shape}; there must be one for each of the {num_classes} "
                "classes"
            )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be within 0 to 1")
    valid = label != IGNORE
    # Pixels without a label get class 0, whose loss is finite: a mask does not remove NaN or infinity from a gradient.
    index = jnp.where(valid, label, 0).astype(jnp.int32)
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32))
    # Selected by comparison, because the gradient is then fused. The gradient of indexing is a scatter into zeros.
    is_label = jax.nn.one_hot(index, num_classes, dtype=bool)
    loss = -jnp.where(is_label, log_probability, 0.0).sum(axis=-1)
    weight = jnp.ones_like(loss)
    if class_weights is not None:
        weight = jnp.take(class_weights, index)
        loss = loss * weight
    if label_smoothing:
        if class_weights is not None:
            log_probability = log_probability * class_weights.reshape((1,) * label.ndim + (-1,))
        mean_loss = -log_probability.sum(axis=-1) / num_classes
        loss = (1 - label_smoothing) * loss + label_smoothing * mean_loss
    return jnp.where(valid, loss, 0.0).sum(), jnp.where(valid, weight, 0.0).sum()
