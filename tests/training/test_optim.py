"""The optimizer: trajectories against PyTorch's SGD, rates against their formula, and what decay pulls on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from small_runs import PLAIN

from fcn_jax.config import Config, OptimConfig
from fcn_jax.data.defaults import fill_config
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN8s
from fcn_jax.training.optim import check_groups, make_optimizer, make_schedule, mask_decayed, stop_frozen_gradients

STEPS = 10


def of(optim: OptimConfig, steps: int = STEPS) -> Config:
    return fill_config(Config(optim=optim, steps=steps))


def formula(config: OptimConfig, steps: int, t: int) -> float:
    """The rate of step t, as written in the documentation."""
    w, peak = config.warmup_steps or 0, config.learning_rate
    if t < w:
        return peak * (t + 1) / (w + 1)
    if config.schedule == "constant":
        return peak
    return peak * (1 - (t - w) / (steps - w)) ** config.power


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
@pytest.mark.parametrize("schedule", ["poly", "constant"])
def test_rates_follow_the_formula(schedule, power, warmup):
    config = OptimConfig(learning_rate=0.3, schedule=schedule, power=power, warmup_steps=warmup)
    rate = make_schedule(of(config, STEPS))
    rates = [float(rate(t)) for t in range(STEPS)]
    np.testing.assert_allclose(rates, [formula(config, STEPS, t) for t in range(STEPS)], rtol=1e-5)


@pytest.mark.parametrize(("schedule", "warmup"), [("poly", 0), ("poly", 4), ("poly", 12), ("constant", 4)])
def test_an_extended_run_has_the_rates_of_longer_runs_after_its_former_ends(schedule, warmup):
    optim = OptimConfig(learning_rate=0.3, schedule=schedule, power=0.9, warmup_steps=warmup)
    config = fill_config(Config(optim=optim, steps=10, extend=(15, 30)))
    expected = [formula(optim, 10 if t < 10 else 15 if t < 15 else 30, t) for t in range(30)]
    rate = make_schedule(config)
    np.testing.assert_allclose([float(rate(t)) for t in range(30)], expected, rtol=1e-5)


def test_each_cut_halves_the_rate_after_it():
    optim = OptimConfig(learning_rate=0.3, power=0.9, warmup_steps=0, rate_cuts=(4, 2, 4))
    rate = make_schedule(of(optim, 6))
    expected = [formula(optim, 6, t) / (1, 1, 2, 2, 8, 8)[t] for t in range(6)]
    np.testing.assert_allclose([float(rate(t)) for t in range(6)], expected, rtol=1e-5)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing_at_the_end():
    rate = make_schedule(of(OptimConfig(learning_rate=0.5, warmup_steps=3), 20))
    rates = [float(rate(t)) for t in range(21)]
    assert rates[0] == pytest.approx(0.125)
    assert rates[3] == 0.5 == max(rates)
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[19] > 0
    assert rates[20] == 0


def test_a_warmup_longer_than_the_run_still_rises():
    rate = make_schedule(of(OptimConfig(learning_rate=1.0, warmup_steps=9), 5))
    np.testing.assert_allclose([float(rate(t)) for t in range(5)], np.arange(1, 6) / 10, rtol=1e-6)


CONFIGS = {
    "poly": OptimConfig(learning_rate=0.2, weight_decay=0.05),
    "constant, no momentum": OptimConfig(learning_rate=0.2, schedule="constant", momentum=0.0, weight_decay=0.05),
    "warm-up, no decay": OptimConfig(learning_rate=0.2, warmup_steps=4, weight_decay=0.0),
    "momentum of the reference": OptimConfig(learning_rate=0.02, momentum=0.99, weight_decay=0.05),
    "clipped": OptimConfig(learning_rate=0.2, weight_decay=0.05, clip_norm=0.7),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", CONFIGS)
def test_trajectory_equals_pytorch(name):
    torch = pytest.importorskip("torch")
    config = CONFIGS[name]
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    start = {"conv": {"kernel": draw(3, 4), "bias": draw(4)}, "norm": {"scale": draw(4), "bias": draw(4)}}
    pulls = [jax.tree.map(lambda x: draw(*x.shape), start) for _ in range(STEPS)]

    # The gradient depends on the parameters, so that every error goes on to grow: curvature 2 plus a pull a step.
    params, transformation = start, make_optimizer(of(config, STEPS))
    state = transformation.init(params)

    @jax.jit
    def step(params, state, pull):
        gradient = jax.tree.map(lambda p, g: 2 * p + g, params, pull)
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    theirs = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), start)
    kernels = [theirs["conv"]["kernel"]]
    others = [theirs["conv"]["bias"], *theirs["norm"].values()]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)

    clipped = []
    for t, pull in enumerate(pulls):
        params, state = step(params, state, pull)
        for parameter, g in zip(jax.tree.leaves(theirs), jax.tree.leaves(pull), strict=True):
            parameter.grad = 2 * parameter.detach() + torch.tensor(g)
        if config.clip_norm:
            norm = torch.nn.utils.clip_grad_norm_([*kernels, *others], config.clip_norm)
            clipped.append(norm > config.clip_norm)
        for group in sgd.param_groups:
            group["lr"] = formula(config, STEPS, t)
        sgd.step()
        for ours, parameter in zip(jax.tree.leaves(params), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=2e-5, atol=2e-5, err_msg=f"step {t}")
    assert any(clipped) == bool(config.clip_norm)


GROUPED = {
    "backbone frozen, head fast": OptimConfig(
        learning_rate=0.05,
        weight_decay=0.05,
        frozen=("backbone/conv1", "backbone/bn1"),
        rate_factors=(("score", 10.0),),
    ),
    "the reference's biases": OptimConfig(
        learning_rate=0.05, schedule="constant", momentum=0.99, weight_decay=0.05, bias_factor=2.0
    ),
    "all at once": OptimConfig(
        learning_rate=0.05,
        warmup_steps=3,
        weight_decay=0.1,
        clip_norm=0.7,
        frozen=("backbone/bn1",),
        rate_factors=(("score", 4.0), ("score_fr", 0.5), ("backbone", 0.25)),
        bias_factor=2.0,
    ),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", GROUPED)
def test_groups_equal_those_of_pytorch(name):
    """A group a parameter there: its rate, its decay, or no gradient at all."""
    torch = pytest.importorskip("torch")
    config = GROUPED[name]
    generator = np.random.default_rng(1)
    shapes = {
        "backbone/conv1/kernel": (2, 3), "backbone/conv1/bias": (3,), "backbone/bn1/scale": (3,),
        "backbone/bn1/bias": (3,), "backbone/conv10/kernel": (3, 3), "score_fr/kernel": (3, 2), "score_fr/bias": (2,),
        "score_pool4/kernel": (3, 2), "upscore/kernel": (2, 2),
    }  # fmt: skip
    start = {path: generator.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    pulls = [
        {path: generator.normal(size=shape).astype(np.float32) for path, shape in shapes.items()} for _ in range(STEPS)
    ]

    def gradient_of(params, pull):
        squares = jax.tree.map(lambda p, g: (p * p + g * p).sum(), stop_frozen_gradients(config, params), pull)
        return sum(jax.tree.leaves(squares))

    params = traverse_util.unflatten_dict(start, sep="/")
    transformation = make_optimizer(of(config, STEPS))
    state = transformation.init(params)

    @jax.jit
    def step(params, state, pull):
        gradient = jax.grad(gradient_of)(params, pull)
        updates, state = transformation.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def frozen(path: str) -> bool:
        return any(path[: len(beginning)] == beginning for beginning in config.frozen)

    def factor(path: str) -> float:
        value = config.bias_factor if path.split("/")[-1] == "bias" else 1.0
        for beginning, more in config.rate_factors:
            value *= more if path[: len(beginning)] == beginning else 1.0
        return value

    theirs = {path: torch.tensor(value, requires_grad=not frozen(path)) for path, value in start.items()}
    groups = [
        {"params": [tensor], "weight_decay": config.weight_decay if path.endswith("kernel") else 0.0, "path": path}
        for path, tensor in theirs.items()
        if tensor.requires_grad
    ]
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)
    for t, pull in enumerate(pulls):
        params, state = step(params, state, traverse_util.unflatten_dict(pull, sep="/"))
        sgd.zero_grad()
        sum((p * p + torch.tensor(pull[path]) * p).sum() for path, p in theirs.items()).backward()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(theirs.values(), config.clip_norm)
        for group in sgd.param_groups:
            group["lr"] = formula(config, STEPS, t) * factor(group["path"])
        sgd.step()
        ours = traverse_util.flatten_dict(params, sep="/")
        for path, tensor in theirs.items():
            np.testing.assert_allclose(ours[path], tensor.detach().numpy(), rtol=2e-5, atol=2e-5, err_msg=f"{path} {t}")
    moved = {path for path in shapes if not np.array_equal(ours[path], start[path])}
    assert moved == {path for path in shapes if not frozen(path)}
    assert moved != set(shapes) or not config.frozen


def test_what_is_frozen_has_no_velocity_and_a_gradient_of_zero():
    config = OptimConfig(learning_rate=0.1, frozen=("backbone",))
    params = {"backbone": {"kernel": jnp.ones((2, 3))}, "score": {"kernel": jnp.ones((4, 5))}}
    shapes = [leaf.shape for leaf in jax.tree.leaves(make_optimizer(of(config, 5)).init(params)) if leaf.ndim]
    assert shapes == [(4, 5)]
    gradient = jax.grad(lambda p: sum(x.sum() for x in jax.tree.leaves(stop_frozen_gradients(config, p))))(params)
    assert not gradient["backbone"]["kernel"].any()
    assert gradient["score"]["kernel"].all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            OptimConfig(frozen=("backbone/layer1", "backbone/layr2")),
            r"optim\.frozen names 'backbone/layr2', and no parameter's .* did you mean 'backbone/layer2_0'\?",
        ),
        (OptimConfig(rate_factors=(("skore_fr", 10.0),)), r"optim\.rate-factors names 'skore_fr', .* mean 'score_fr"),
        (OptimConfig(frozen=("zzz",)), r"optim\.frozen names 'zzz', .*the paths begin with backbone, [^?]*$"),
        (OptimConfig(frozen=("backbone", "score", "upscore")), r"which is every parameter; leave some to be trained"),
    ],
)
def test_groups_that_fit_no_network_are_refused(config, message):
    model = FCN8s(num_classes=3, backbone=ResNet(depths=(1, 1, 1, 1), width=8))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    with pytest.raises(InputError, match=message):
        check_groups(config, params)
    check_groups(OptimConfig(frozen=("backbone/layer1", "score_fr"), rate_factors=(("up", 2.0),)), params)


def test_in_the_units_of_its_features_a_network_learns_as_with_a_normalised_input():
    """A plain network with the input c x, c times the biases and 1/c times the score kernels is the same network."""
    c, model = 50.0, FCN8s(3, PLAIN)
    generator = np.random.default_rng(5)
    images = generator.normal(size=(2, 32, 32, 3)).astype(np.float32)
    pull = generator.normal(size=(2, 32, 32, 3)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    start = jax.tree.map(lambda x: np.asarray(x + generator.normal(0, 0.1, x.shape), np.float32), params)

    def rescale(params, c):
        flat = traverse_util.flatten_dict(params)
        for path, value in flat.items():
            if path[0] == "backbone" and path[-1] == "bias":
                flat[path] = value * c
            if path[0].startswith("score") and path[-1] == "kernel":
                flat[path] = value / c
        return traverse_util.unflatten_dict(flat)

    find_gradient = jax.jit(jax.grad(lambda params, images: (model.apply({"params": params}, images) * pull).sum()))

    def learn(params, images, feature_scale):
        optim = OptimConfig(learning_rate=0.1, weight_decay=0.1, clip_norm=3.0, feature_scale=feature_scale)
        transformation = make_optimizer(of(optim))
        state = transformation.init(params)
        for _ in range(4):
            updates, state = transformation.update(find_gradient(params, images), state, params)
            params = optax.apply_updates(params, updates)
        return params

    def distance(end):
        return traverse_util.flatten_dict(jax.tree.map(lambda x, y: np.asarray(x, np.float64) - y, end, start), sep="/")

    normalised = learn(start, images, 1.0)
    moved = distance(rescale(learn(rescale(start, c), c * images, c), 1 / c))
    for path, value in distance(normalised).items():
        assert np.abs(value).max() > 1e-6, path
        np.testing.assert_allclose(moved[path], value, rtol=0, atol=0.02 * np.abs(value).max(), err_msg=path)
    plain = rescale(learn(rescale(start, c), c * images, 1.0), 1 / c)
    assert not np.allclose(plain["score_fr"]["kernel"], normalised["score_fr"]["kernel"], rtol=0.1)


def test_decay_of_a_kernel_by_hand():
    # Two steps without a gradient: v1 = d w, w1 = w - r v1; v2 = m v1 + d w1, w2 = w1 - r v2.
    config = OptimConfig(learning_rate=0.1, schedule="constant", momentum=0.9, weight_decay=0.5)
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones((1,))}
    transformation = make_optimizer(of(config, 2))
    state = transformation.init(params)
    for _ in range(2):
        updates, state = transformation.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert float(params["kernel"][0, 0]) == pytest.approx(0.95 - 0.1 * (0.9 * 0.5 + 0.5 * 0.95), rel=1e-6)
    assert float(params["bias"][0]) == 1


def test_clipping_keeps_the_direction_and_leaves_small_gradients_alone():
    config = OptimConfig(learning_rate=1.0, schedule="constant", momentum=0.0, weight_decay=0.0, clip_norm=1.0)
    params = {"a": {"kernel": jnp.zeros((2,))}, "b": {"bias": jnp.zeros((1,))}}
    transformation = make_optimizer(of(config, 2))
    for size, length in ((10.0, 1.0), (0.01, 0.03)):
        gradient = {"a": {"kernel": size * jnp.array([1.0, 2.0])}, "b": {"bias": size * jnp.array([2.0])}}
        updates, _ = transformation.update(gradient, transformation.init(params), params)
        flat = np.concatenate([updates["a"]["kernel"], updates["b"]["bias"]])
        np.testing.assert_allclose(flat, -length * np.array([1, 2, 2]) / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "backbone", [ResNet(depths=(1, 1, 1, 1), width=8), VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=1)]
)
def test_decay_pulls_on_all_kernels_of_a_network_and_on_nothing_else(backbone):
    model = FCN8s(num_classes=3, backbone=backbone)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    mask = mask_decayed(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    # Kernels have four axes; biases, and the scales and shifts of norms, one.
    by_shape = jax.tree.map(lambda shape: len(shape.shape) == 4, params)
    assert jax.tree.leaves(mask) == jax.tree.leaves(by_shape)
    assert {True, False} == set(jax.tree.leaves(mask))


def test_the_optimizer_state_holds_one_velocity_a_parameter():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
    state = make_optimizer(of(OptimConfig(learning_rate=0.1), 5)).init(params)
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(leaf.shape for leaf in arrays) == [(2,), (2, 2)]
