"""The training step: data parallelism, accumulation, purity, and what reaches the loss."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from small_runs import CLASSES, NORMED, PLAIN, Tiny, config, draw_batch, examples

from fcn_jax.config import AugmentConfig, Config, DataConfig, InputConfig, ModelConfig, OptimConfig
from fcn_jax.data.augment import draw_changes, find_origin, normalise
from fcn_jax.data.canvas import Batch
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s
from fcn_jax.models.reference import JointFCN
from fcn_jax.training.state import init_state
from fcn_jax.training.step import train_step

WITH_DROPOUT = Tiny(dropout=0.5)


def batch(settings: Config, seed: int = 0) -> Batch:
    return draw_batch(settings, examples(8, seed), (40, 40), step=seed)


@functools.cache
def step_on(devices: int, backbone, settings: Config):
    """A jitted step over so many devices, its first state, and the sharding of batches."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    model = FCN8s(num_classes=CLASSES, backbone=backbone)
    state = jax.jit(functools.partial(init_state, model, settings), out_shardings=everywhere)()
    # Zero scores hide what reaches them: start from some.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.1 if "score" in str(path) and "kernel" in str(path) else x, state.variables
    )
    step = jax.jit(functools.partial(train_step, model=model, config=settings))
    return step, state.replace(variables=variables), sharding


def losses(devices: int, backbone, settings: Config, steps: int = 3) -> np.ndarray:
    step, state, sharding = step_on(devices, backbone, settings)
    values = []
    for index in range(steps):
        state, metrics = step(state, jax.device_put(batch(settings, index), sharding))
        values.append([metrics["loss"], metrics["gradient_norm"]])
    return np.array(values)


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one():
    """BatchNorm included: its statistics are those of the global batch."""
    one, eight = losses(1, NORMED, config()), losses(8, NORMED, config())
    assert np.ptp(one[:, 0]) > 1e-3
    np.testing.assert_allclose(eight, one, rtol=1e-3)


@pytest.mark.parametrize(("parts", "devices"), [(4, 1), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_accumulation_gives_the_losses_of_the_whole_batch(parts, devices):
    """Without BatchNorm, whose statistics are those of each part."""
    small = AugmentConfig(crop=16, scale=(0.7, 1.4))  # a scan is slow at XLA's lowest optimization level
    whole = losses(1, PLAIN, config(augment=small))
    in_parts = losses(devices, PLAIN, config(augment=small, accumulate=parts))
    np.testing.assert_allclose(in_parts, whole, rtol=1e-3)


def test_the_loss_falls_and_one_program_does_all_steps():
    settings = config()
    model = FCN8s(num_classes=CLASSES, backbone=NORMED)
    state = jax.jit(functools.partial(init_state, model, settings))()
    chex.clear_trace_counter()
    once = chex.assert_max_traces(lambda state, batch: train_step(state, batch, model=model, config=settings), n=1)
    step = jax.jit(once, donate_argnums=0)
    values = []
    for index in range(settings.steps):
        state, metrics = step(state, jax.device_put(batch(settings, index)))
        values.append(float(metrics["loss"]))
    assert abs(values[0] - np.log(CLASSES)) < 1e-5  # zero scores: every class as likely
    assert np.mean(values[-5:]) < 0.5 * values[0]


def test_a_network_without_batch_norm_learns_at_its_default_rate():
    """A small VGG; test_defaults_train.py has every backbone in full."""
    settings = config(model=ModelConfig(backbone="vgg16"), data=DataConfig("shapes"), optim=OptimConfig(), steps=30)
    values = losses(1, PLAIN, settings, steps=30)[:, 0]
    assert np.isfinite(values).all()
    assert np.mean(values[-5:]) < 0.9 * values[0]


def test_the_gradients_of_frozen_first_stages_are_not_computed():
    """A stage behind which all is frozen needs no gradient of its input either."""
    model = FCN8s(CLASSES, VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=1, dropout=0.0, conv=nn.Conv))

    def count_flops(frozen: tuple[str, ...]) -> float:
        settings = config(optim=OptimConfig(learning_rate=0.02, frozen=frozen))
        state = jax.eval_shape(functools.partial(init_state, model, settings))
        step = jax.jit(functools.partial(train_step, model=model, config=settings))
        return step.lower(state, batch(settings)).cost_analysis()["flops"]

    saved = count_flops(()) - count_flops(("backbone/conv1", "backbone/conv2"))
    # Two operations for each weight and pixel: the gradients of both kernels, and that of the input of conv2_1.
    kernel1, kernel2 = 9 * 3 * 64 * 32 * 32, 9 * 64 * 128 * 16 * 16
    assert saved > 8 * 2 * (kernel1 + 2 * kernel2)


def test_a_batch_that_is_all_void_changes_nothing_but_decay():
    settings = config(optim=OptimConfig(learning_rate=0.1, weight_decay=0.0))
    step, state, _ = step_on(1, PLAIN, settings)
    void = batch(settings)._replace(label=np.full((8, 40, 40), 255, np.uint8))
    after, metrics = step(state, void)
    assert float(metrics["loss"]) == 0
    chex.assert_trees_all_equal(after.variables, state.variables)


def test_the_sum_loss_is_the_mean_loss_times_the_labelled_pixels():
    mean = losses(1, PLAIN, config(), steps=1)[0]
    optim = OptimConfig(learning_rate=0.02, weight_decay=1e-3, reduction="sum")
    total = losses(1, PLAIN, config(optim=optim), steps=1)[0]
    pixels = total[0] / mean[0]
    assert abs(pixels - round(pixels)) < 0.1
    assert 8 * 32 * 32 * 0.3 < pixels <= 8 * 32 * 32
    np.testing.assert_allclose(total[1] / mean[1], pixels, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("auxiliary", [0.5, 0.0])
def test_the_dilated_net_also_learns_from_its_auxiliary_scores(auxiliary):
    """The loss is main + weight * auxiliary, as torchvision's train.py has it; without a weight that head stays."""
    backbone = ResNet(depths=(1, 1, 1, 1), width=4, output_stride=8)
    model = DilatedFCN(num_classes=CLASSES, backbone=backbone, dropout=0.0)
    optim = OptimConfig(learning_rate=0.1, weight_decay=0.0, auxiliary_weight=auxiliary)
    settings = config(optim=optim, augment=AugmentConfig(crop=32, scale=(1.0, 1.0), flip=False))
    state = jax.jit(functools.partial(init_state, model, settings))()
    generator = np.random.default_rng(0)
    for head in ("classifier", "aux_classifier"):
        score = state.variables["params"][head]["score"]
        score["kernel"] = jnp.asarray(generator.normal(size=score["kernel"].shape), jnp.float32)
    pixels = generator.integers(0, 256, (8, 32, 32, 3), np.uint8)
    label = generator.integers(0, CLASSES, (8, 32, 32), np.uint8)
    sizes = np.full((8, 2), 32, np.int32)
    whole = Batch(pixels, label, sizes, draw_changes(0, 0, sizes, 0, 8, settings.augment))
    after, metrics = jax.jit(functools.partial(train_step, model=model, config=settings))(state, whole)

    images, learning = normalise(jnp.asarray(pixels), InputConfig()), {"train": True, "mutable": ["batch_stats"]}
    dropout = {"dropout": jax.random.key(0)}
    scores, _ = jax.jit(lambda: model.apply(state.variables, images, return_aux=True, rngs=dropout, **learning))()

    def mean(logits: jax.Array) -> float:
        exponents = np.exp(np.asarray(logits, np.float64))
        right = np.take_along_axis(exponents, label[..., None].astype(int), axis=-1)[..., 0]
        return -np.log(right / exponents.sum(axis=-1)).mean()

    logits, aux = scores
    assert abs(mean(logits) - mean(aux)) > 1e-3
    assert float(metrics["loss"]) == pytest.approx(mean(logits) + auxiliary * mean(aux), rel=1e-4)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.variables["params"], state.variables["params"])
    assert moved["aux_classifier"]["score"]["kernel"] == bool(auxiliary)
    assert moved["classifier"]["score"]["kernel"]


def test_class_weights_and_smoothing_reach_the_loss():
    plain = losses(1, PLAIN, config(), steps=2)
    for optim in (
        OptimConfig(learning_rate=0.05, class_weights=(1.0, 5.0, 0.2)),
        OptimConfig(learning_rate=0.05, label_smoothing=0.2),
    ):
        # From the second step on: at first all scores are equal, and so are all weightings of them.
        assert abs(losses(1, PLAIN, config(optim=optim), steps=2)[1, 0] - plain[1, 0]) > 1e-3


def test_a_mean_loss_does_not_depend_on_the_size_of_class_weights():
    """As in PyTorch: only their ratios count, even where they add up to less than 1."""
    large, small = (
        losses(1, PLAIN, config(optim=OptimConfig(learning_rate=0.05, class_weights=weights)), steps=3)
        for weights in ((1.0, 5.0, 0.2), (1e-6, 5e-6, 0.2e-6))
    )
    np.testing.assert_allclose(small, large, rtol=1e-3)


@pytest.mark.slow
def test_windows_of_images_give_the_losses_of_whole_images():
    """Each on a canvas of 40x40, of which the crop of the step looks at 12 / 0.8 pixels and those beside them."""
    settings = config(augment=AugmentConfig(crop=12, scale=(0.8, 0.8)))
    step, state, _ = step_on(1, NORMED, settings)
    whole, side = batch(settings), 26
    at = find_origin(whole.changes, whole.size, (side, side))
    assert len({tuple(x) for x in at}) > 2
    image, label = (
        np.stack([x[top : top + side, left : left + side] for x, (top, left) in zip(array, at, strict=True)])
        for array in (whole.image, whole.label)
    )
    windows = Batch(image, label, whole.size, whole.changes, at)
    for name, value in step(state, whole)[1].items():
        np.testing.assert_allclose(step(state, windows)[1][name], value, rtol=1e-4)


def test_the_same_step_twice_gives_the_same_bits_and_another_step_drops_other_activations():
    settings = config()
    step, state, _ = step_on(1, WITH_DROPOUT, settings)
    images = batch(settings)
    first, second = step(state, images)[0], step(state, images)[0]
    chex.assert_trees_all_equal(first, second)
    later = step(state.replace(step=state.step + 1), images)[0]
    assert not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(later), strict=True))
    assert int(first.step) == 1
    assert first.step.dtype == jnp.int32


def test_a_network_with_several_maps_of_logits_is_not_mistaken_for_one_with_auxiliary_scores():
    model = JointFCN(num_classes=CLASSES, backbone=NORMED, tasks=(2, 1))
    settings = config()
    state = jax.eval_shape(functools.partial(init_state, model, settings))
    with pytest.raises(TypeError):
        jax.eval_shape(functools.partial(train_step, model=model, config=settings), state, batch(settings))
