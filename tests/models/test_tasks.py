"""Several tasks on one backbone: their classes, probabilities and losses, compared with networks of one task each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from random_network import draw_network_variables
from small_runs import PLAIN

from fcn_jax.config import ModelConfig
from fcn_jax.models.build import build
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s
from fcn_jax.models.losses import cross_entropy
from fcn_jax.models.tasks import choose_classes, compute_probabilities, count_by_task, sum_cross_entropy

COUNTS = (4, 3)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 5, 6, sum(COUNTS))).astype(np.float32)
LABEL = np.stack([RNG.integers(0, count, (2, 5, 6)) for count in COUNTS], axis=-1).astype(np.uint8)
LABEL[0, :2, :, 0] = 255  # void in one task
LABEL[:, 4, 1:, 1] = 255


def test_each_task_has_its_own_class():
    class_map = np.asarray(choose_classes(jnp.asarray(LOGITS), COUNTS))
    assert (class_map.shape, class_map.dtype) == ((2, 5, 6, 2), np.uint8)
    for place in np.ndindex(2, 5, 6):
        scores = LOGITS[place].tolist()
        assert class_map[place].tolist() == [scores.index(max(scores[:4])), scores[4:].index(max(scores[4:]))]
    one = choose_classes(jnp.asarray(LOGITS), (7,))
    np.testing.assert_array_equal(one, LOGITS.argmax(-1))


def test_probabilities_add_up_in_each_task():
    shares = np.asarray(compute_probabilities(jnp.asarray(LOGITS), COUNTS))
    for part, own in ((shares[..., :4], LOGITS[..., :4]), (shares[..., 4:], LOGITS[..., 4:])):
        powers = np.exp(own.astype(np.float64))
        np.testing.assert_allclose(part, powers / powers.sum(axis=-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("factors", [(1,) * 7, (1, 2, 0.5, 3, 0.25, 1, 4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_sum_over_the_tasks(smoothing, factors):
    given = None if len(set(factors)) == 1 else jnp.asarray(factors, jnp.float32)
    total, weight = sum_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABEL), COUNTS, given, smoothing)
    expected, pixels = 0.0, [0.0, 0.0]
    parts = np.split(np.array(factors, float), [4])
    for place in np.ndindex(2, 5, 6):
        for task, scores in enumerate(np.split(LOGITS[place].astype(np.float64), [4])):
            if (label := LABEL[place][task]) != 255:
                logs = scores - np.log(np.exp(scores).sum())
                logs = parts[task] * logs
                expected -= (1 - smoothing) * logs[label] + smoothing * logs.mean()
                pixels[task] += parts[task][label]
    assert pixels[0] != pixels[1]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert float(weight) == sum(pixels) / 2


def test_one_task_has_the_loss_of_its_classes():
    logits, label = jnp.asarray(LOGITS[..., :4]), jnp.asarray(LABEL[..., 0])
    assert sum_cross_entropy(logits, label, (4,)) == cross_entropy(logits, label)


def take_classes(variables: dict, classes: slice) -> dict:
    """The variables of a network that has some of the classes of another one, with fixed upsampling."""
    flat = traverse_util.flatten_dict(variables)
    return traverse_util.unflatten_dict(
        {path: value[..., classes] if path[1].startswith("score") else value for path, value in flat.items()}
    )


def test_two_networks_of_one_task_on_one_backbone_compute_the_same():
    """Logits, losses and gradients of the backbone, which are those of both tasks added up."""
    joint = FCN8s(7, PLAIN, upsampling="fixed", tasks=COUNTS)
    variables = draw_network_variables(joint)
    images = jnp.asarray(RNG.normal(size=(2, 20, 36, 3)).astype(np.float32))
    label = RNG.integers(0, 3, (2, 20, 36, 2)).astype(np.uint8)
    label[0, 10:] = 255
    label = jnp.asarray(label)

    def compute_loss(params, model, label, counts):
        logits = model.apply({**variables, "params": params}, images)
        total, weight = sum_cross_entropy(logits, label, counts)
        return total / weight, logits

    compute = jax.jit(jax.value_and_grad(compute_loss, has_aux=True), static_argnums=(1, 3))
    (loss, logits), gradient = compute(variables["params"], joint, label, COUNTS)
    losses, gradients = 0.0, []
    for task, classes in enumerate((slice(4), slice(4, None))):
        params = take_classes(variables, classes)["params"]
        single = FCN8s(COUNTS[task], PLAIN, upsampling="fixed")
        (own_loss, own_logits), own = compute(params, single, label[..., task], COUNTS[task : task + 1])
        np.testing.assert_allclose(logits[..., classes], own_logits, rtol=1e-4, atol=1e-4)
        losses += own_loss
        gradients.append(own["backbone"])
    np.testing.assert_allclose(loss, losses, rtol=1e-5)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient["backbone"]))
    both = jax.tree.map(jnp.add, *gradients)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-4 * largest), gradient["backbone"], both
    )


def test_the_network_of_a_configuration_has_the_classes_of_all_tasks():
    for model in (
        build(ModelConfig(backbone="resnet18"), *COUNTS),
        build(ModelConfig(head="dilated", backbone="resnet50"), *COUNTS),
    ):
        assert (model.num_classes, model.tasks, count_by_task(model)) == (7, COUNTS, COUNTS)
    assert count_by_task(FCN8s(5)) == (5,)


@pytest.mark.parametrize("network", [FCN8s, DilatedFCN])
@pytest.mark.parametrize("tasks", [(4, 4), (7, 0)])
def test_tasks_that_do_not_add_up(network, tasks):
    with pytest.raises(ValueError, match="they must be at least 1 and add up to num_classes, 7"):
        network(7, tasks=tasks).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
