"""Batch normalization against NumPy in float64, PyTorch and Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fcn_jax.layers import BatchNorm, plain_methods

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(3, 9, 7, 5)) * np.arange(1, 6) + np.arange(5)).astype(np.float32)
GRADIENT = RNG.normal(size=X.shape).astype(np.float32)
methods = pytest.mark.parametrize("method", [None, "plain", "matmul"])


def variables():
    rng = np.random.default_rng(1)
    return {
        "params": {name: rng.normal(1, 0.5, 5).astype(np.float32) for name in ("scale", "bias")},
        "batch_stats": {"mean": rng.normal(size=5).astype(np.float32), "var": rng.uniform(1, 3, 5).astype(np.float32)},
    }


def value_and_gradients(norm, given):
    """Compute the normalized values, and the gradients of ``sum(values * GRADIENT)`` by parameters and input."""

    def normalize(params, x):
        return norm.apply({**given, "params": params}, x, mutable=["batch_stats"])[0]

    y, back = jax.vjp(normalize, given["params"], X)
    return y, *back(GRADIENT)


@methods
def test_batch_statistics_and_their_update(method):
    given, x = variables(), X.astype(np.float64).reshape(-1, 5)
    y, updates = BatchNorm(False, method=method).apply(given, X, mutable=["batch_stats"])
    mean, variance = x.mean(0), x.var(0)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * given["params"]["scale"] + given["params"]["bias"]
    np.testing.assert_allclose(y.reshape(-1, 5), expected, atol=1e-5)
    for name, value in (("mean", mean), ("var", variance)):
        want = 0.9 * given["batch_stats"][name] + 0.1 * value
        np.testing.assert_allclose(updates["batch_stats"][name], want, rtol=1e-5)


@methods
@pytest.mark.parametrize("running", [False, True])
def test_gradients(running, method):
    """By the formula of Ioffe & Szegedy 2015, section 3, in float64."""
    given = variables()
    x, g = (array.astype(np.float64).reshape(-1, 5) for array in (X, GRADIENT))
    statistics = given["batch_stats"]
    mean, variance = (statistics["mean"], statistics["var"]) if running else (x.mean(0), x.var(0))
    deviation = np.sqrt(variance + 1e-5)
    normalized = (x - mean) / deviation
    through_statistics = 0 if running else g.mean(0) + normalized * (g * normalized).mean(0)
    _, params, dx = value_and_gradients(BatchNorm(running, method=method), given)
    np.testing.assert_allclose(
        dx.reshape(-1, 5), given["params"]["scale"] / deviation * (g - through_statistics), atol=1e-5
    )
    np.testing.assert_allclose(params["scale"], (g * normalized).sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["bias"], g.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.peers
@pytest.mark.parametrize("running", [False, True])
def test_values_and_gradients_are_those_of_pytorch(running):
    torch = pytest.importorskip("torch")
    given = variables()
    layer = torch.nn.BatchNorm2d(5)
    layer.load_state_dict(
        {
            "weight": torch.from_numpy(given["params"]["scale"]),
            "bias": torch.from_numpy(given["params"]["bias"]),
            "running_mean": torch.from_numpy(given["batch_stats"]["mean"]),
            "running_var": torch.from_numpy(given["batch_stats"]["var"]),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    layer.train(not running)
    x = torch.from_numpy(X.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = layer(x)
    y.backward(torch.from_numpy(GRADIENT.transpose(0, 3, 1, 2).copy()))

    ours, params, dx = value_and_gradients(BatchNorm(running), given)
    np.testing.assert_allclose(ours, y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(dx, x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(params["scale"], layer.weight.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["bias"], layer.bias.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_variables_and_values_are_those_of_flax(dtype):
    ours, peers = BatchNorm(False, dtype=dtype), nn.BatchNorm(False, momentum=0.9, epsilon=1e-5, dtype=dtype)
    x = jnp.asarray(X, dtype)
    with jax.numpy_dtype_promotion("standard"):  # Flax mixes types on purpose
        expected_shapes = jax.tree.map(jnp.shape, peers.init(jax.random.key(0), x))
        two, expected = peers.apply(variables(), x, mutable=["batch_stats"])
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == expected_shapes
    one, updates = ours.apply(variables(), x, mutable=["batch_stats"])
    assert one.dtype == two.dtype == dtype
    np.testing.assert_allclose(*(y.astype(np.float32) for y in (one, two)), atol=1e-5 if dtype == jnp.float32 else 0.05)
    for name in ("mean", "var"):
        assert updates["batch_stats"][name].dtype == np.float32
        np.testing.assert_allclose(updates["batch_stats"][name], expected["batch_stats"][name], rtol=1e-5)


def test_statistics_start_at_zero_and_one():
    start = BatchNorm(False).init(jax.random.key(0), X)
    np.testing.assert_array_equal(start["batch_stats"]["mean"], np.zeros(5))
    np.testing.assert_array_equal(start["batch_stats"]["var"], np.ones(5))


def test_gradients_of_constant_channels_are_finite():
    x = np.full((2, 3, 3, 2), 1e3, np.float32)
    norm = BatchNorm(False)
    given = norm.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: (norm.apply(given, x, mutable=["batch_stats"])[0] ** 2).sum())(x)
    assert np.isfinite(gradient).all()


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"method is 'fft'.*plain, matmul"):
        BatchNorm(False, method="fft").init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("x", "running", "message"),
    [
        (np.array(1, np.float32), True, r"x is float32\[\]; it must be floating point, \[\*cells, channels\]"),
        (X[..., :0], True, r"x is float32\[.*, 0\]; .*at least one channel"),
        (X[:0], False, r"x is float32\[0, .*at least one cell"),
        (X.astype(np.uint8), True, r"x is uint8\["),
    ],
)
def test_inputs_without_statistics_are_refused(x, running, message):
    with pytest.raises(ValueError, match=message):
        BatchNorm(running).init(jax.random.key(0), x)


def test_an_empty_batch_is_normalized_by_running_statistics():
    assert BatchNorm(True).apply(variables(), X[:0]).shape == X[:0].shape


def test_variables_are_float32_also_where_jax_has_64_bits():
    with jax.enable_x64(True):
        norm, x = BatchNorm(use_running_average=False), jnp.arange(6.0).reshape(3, 2)
        assert x.dtype == jnp.float64
        variables = norm.init(jax.random.key(0), x)
        _, updates = norm.apply(variables, x, mutable=["batch_stats"])
        kinds = {leaf.dtype for leaf in jax.tree.leaves((variables, updates))}
    assert kinds == {np.dtype("float32")}


def test_plain_methods_hold_for_shapes_that_were_traced_before():
    norm, x = BatchNorm(use_running_average=True), jnp.ones((2, 3, 5, 7))
    variables = norm.init(jax.random.key(0), x)

    def count_products() -> int:
        return str(jax.make_jaxpr(lambda v, x: norm.apply(v, x))(variables, x)).count("dot_general[")

    before = count_products()
    assert before > 0
    with plain_methods():
        assert count_products() == 0
    assert count_products() == before
