"""Masked cross-entropy: against a plain loop and against PyTorch, values and gradients."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.data.labels import IGNORE
from fcn_jax.models.losses import cross_entropy

CLASSES = 5
VARIANTS = {
    "plain": (None, 0.0),
    "weighted": ((0.5, 2.0, 1.0, 0.25, 3.0), 0.0),
    "smoothed": (None, 0.1),
    "weighted and smoothed": ((0.5, 2.0, 1.0, 0.25, 3.0), 0.3),
}


def example(seed: int = 0, shape: tuple[int, ...] = (2, 4, 3)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, CLASSES, shape).astype(np.uint8)
    label[generator.random(shape) < 0.3] = IGNORE
    return (3 * generator.normal(size=(*shape, CLASSES))).astype(np.float32), label


def by_loop(logits, label, weights=None, smoothing=0.0) -> tuple[float, float]:
    """The definition, a pixel at a time, in double precision."""
    weights = weights or (1.0,) * CLASSES
    total = weight = 0.0
    for scores, true in zip(logits.reshape(-1, CLASSES).astype(np.float64), label.reshape(-1), strict=True):
        if true == 255:
            continue
        log_sum = scores.max() + math.log(sum(math.exp(score - scores.max()) for score in scores))
        for c in range(CLASSES):
            target = (1 - smoothing) * (c == true) + smoothing / CLASSES
            total += weights[c] * target * (log_sum - scores[c])
        weight += weights[true]
    return total, weight


jitted = jax.jit(cross_entropy, static_argnames="label_smoothing")


def loss(logits, label, weights=None, smoothing=0.0):
    weights = None if weights is None else np.array(weights, np.float32)
    return jitted(logits, label, weights, label_smoothing=smoothing)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_definition(variant):
    logits, label = example()
    np.testing.assert_allclose(
        loss(logits, label, *VARIANTS[variant]), by_loop(logits, label, *VARIANTS[variant]), 1e-5
    )


@pytest.mark.peers
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_value_and_gradient_equal_pytorch(variant, reduction):
    torch = pytest.importorskip("torch")
    weights, smoothing = VARIANTS[variant]
    logits, label = example(1)

    def reduced(logits):
        total, weight = loss(logits, label, weights, smoothing)
        return total / jnp.maximum(weight, 1) if reduction == "mean" else total

    value, gradient = jax.jit(jax.value_and_grad(reduced))(logits)

    theirs = torch.tensor(logits, requires_grad=True)
    their_value = torch.nn.functional.cross_entropy(
        theirs.movedim(-1, 1),
        torch.tensor(label.astype(np.int64)),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=255,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    their_value.backward()
    np.testing.assert_allclose(value, their_value.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_void_is_zero_with_a_zero_gradient(variant):
    # A masked NaN looks right eagerly and comes back under jit.
    logits, label = example()
    label = np.full_like(label, 255)
    weights, smoothing = VARIANTS[variant]
    function = jax.jit(jax.value_and_grad(lambda x: loss(x, label, weights, smoothing), has_aux=True))
    (total, weight), gradient = function(jnp.asarray(logits))
    assert total == 0
    assert weight == 0
    assert not np.asarray(gradient).any()


def test_void_pixels_get_no_gradient_and_others_do():
    logits, label = example()
    gradient = np.asarray(jax.jit(jax.grad(lambda x: loss(x, label)[0]))(logits))
    np.testing.assert_array_equal((gradient != 0).any(axis=-1), label != 255)


def test_parts_of_a_batch_add_up():
    logits, label = example(2, (4, 3, 3))
    label[1] = 255  # one part is all void: a mean of means would differ, or divide by zero
    weights, smoothing = VARIANTS["weighted and smoothed"]
    whole, whole_weight = loss(logits, label, weights, smoothing)
    parts = [loss(logits[i : i + 1], label[i : i + 1], weights, smoothing) for i in range(4)]
    np.testing.assert_allclose(sum(float(total) for total, _ in parts), whole, rtol=1e-6)
    # The weights are multiples of 1/4, so their sums are exact.
    assert sum(float(weight) for _, weight in parts) == float(whole_weight)


def test_parts_whose_terms_are_exact_add_up_exactly():
    # Scores of 0 and -inf-like differences: each pixel costs exactly 0 or exactly 128.
    label = np.random.default_rng(0).integers(0, 2, (4, 8, 8)).astype(np.uint8)
    logits = np.zeros((4, 8, 8, 2), np.float32)
    logits[..., 1] = -128
    whole, weight = loss(logits, label)
    assert float(whole) == 128 * label.sum()
    assert float(weight) == label.size
    assert sum(float(loss(logits[i], label[i])[0]) for i in range(4)) == float(whole)


def test_bfloat16_logits_are_summed_in_float32():
    logits, label = example(3, (8, 16, 16))
    rounded = jnp.asarray(logits, jnp.bfloat16)
    total, weight = loss(rounded, label)
    assert total.dtype == weight.dtype == jnp.float32
    expected = by_loop(np.asarray(rounded.astype(jnp.float32)), label)
    np.testing.assert_allclose((total, weight), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16])
def test_labels_of_any_integer_type(dtype):
    logits, label = example()
    np.testing.assert_allclose(loss(logits, label.astype(dtype)), by_loop(logits, label), rtol=1e-5)


def test_huge_scores_do_not_overflow():
    logits = np.array([[1e4, 0, 0, 0, -1e4], [1e4, 0, 0, 0, -1e4]], np.float32)
    total, weight = loss(logits, np.array([0, 4], np.uint8))
    assert float(total) == 20_000
    assert float(weight) == 2


def test_equal_scores_cost_the_logarithm_of_the_class_count():
    total, _ = loss(np.zeros((3, CLASSES), np.float32), np.array([0, 3, 255], np.uint8))
    assert float(total) == pytest.approx(2 * math.log(CLASSES), rel=1e-6)


def test_sharded_over_devices_it_is_the_sum_of_the_whole():
    logits, label = example(4, (8, 2, 3))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    function = jax.jit(functools.partial(cross_entropy, label_smoothing=0.1))
    results = function(*jax.device_put((logits, label), sharding))
    np.testing.assert_allclose(results, by_loop(logits, label, None, 0.1), rtol=1e-5)


LOGITS, LABEL = np.zeros((2, 4, 3), np.float32), np.zeros((2, 4), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOGITS, LABEL[:1]), r"logits have the shape \(2, 4, 3\) and label is uint8\[1, 4\]"),  # would be broadcast
        ((LOGITS, LABEL[..., None]), r"label is uint8\[2, 4, 1\]"),
        ((LOGITS, LABEL.astype(np.float32)), r"label is float32\[2, 4\]; .*label integers"),
        ((LOGITS[..., :0], LABEL), "with at least one class"),
        ((np.float32(0), np.uint8(0)), r"logits have the shape \(\)"),
        ((LOGITS, "road"), "label is of type str"),
        ((LOGITS, LABEL, np.ones(2, np.float32)), r"class_weights have the shape \(2,\); .* each of the 3 classes"),
        ((LOGITS, LABEL, None, 1.5), r"label_smoothing is 1\.5; it must be within 0 to 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(cross_entropy)(*arguments)
