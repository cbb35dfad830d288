"""Batch normalisation against NumPy in float64, PyTorch and Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn

from fcn_jax.layers import channel_sums as channels
from fcn_jax.layers.batch_norm import BatchNorm

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(3, 9, 7, 5)) * np.arange(1, 6) + np.arange(5)).astype(np.float32)
GRADIENT = RNG.normal(size=X.shape).astype(np.float32)


def variables():
    rng = np.random.default_rng(1)
    return {
        "params": {name: rng.normal(1, 0.5, 5).astype(np.float32) for name in ("scale", "bias")},
        "batch_stats": {"mean": rng.normal(size=5).astype(np.float32), "var": rng.uniform(1, 3, 5).astype(np.float32)},
    }


def test_batch_statistics_in_float64():
    given, x = variables(), X.astype(np.float64).reshape(-1, 5)
    y, updates = BatchNorm(False).apply(given, X, mutable=["batch_stats"])
    mean, variance = x.mean(0), x.var(0)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * given["params"]["scale"] + given["params"]["bias"]
    np.testing.assert_allclose(y.reshape(-1, 5), expected, atol=1e-5)
    for name, value in (("mean", mean), ("var", variance)):
        want = 0.9 * given["batch_stats"][name] + 0.1 * value
        np.testing.assert_allclose(updates["batch_stats"][name], want, rtol=1e-5)


@pytest.mark.parametrize("running", [False, True])
def test_gradients_of_pytorch(running):
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

    def normalised(params, x):
        norm = BatchNorm(running)
        return norm.apply({**given, "params": params}, x, mutable=["batch_stats"])[0]

    ours, back = jax.vjp(normalised, given["params"], X)
    params, dx = back(GRADIENT)
    np.testing.assert_allclose(ours, y.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(dx, x.grad.numpy().transpose(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(params["scale"], layer.weight.grad.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(params["bias"], layer.bias.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_flax_has_the_same(dtype):
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


def test_statistics_begin_at_zero_and_one_and_stay_so_in_init():
    start = BatchNorm(False).init(jax.random.key(0), X)
    np.testing.assert_array_equal(start["batch_stats"]["mean"], np.zeros(5))
    np.testing.assert_array_equal(start["batch_stats"]["var"], np.ones(5))


def test_constant_channels_are_finite():
    x = np.full((2, 3, 3, 2), 1e3, np.float32)
    norm = BatchNorm(False)
    given = norm.init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: (norm.apply(given, x, mutable=["batch_stats"])[0] ** 2).sum())(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_total_and_spread(backend, monkeypatch):
    """And each is the transpose of the other."""
    monkeypatch.setattr(channels.jax, "default_backend", lambda: backend)
    np.testing.assert_allclose(channels.total(jnp.asarray(X)), X.astype(np.float64).sum((0, 1, 2)), rtol=1e-5)
    ones = jnp.arange(5.0)
    np.testing.assert_array_equal(channels.spread(ones, X.shape), np.broadcast_to(ones, X.shape))
    (back,) = jax.vjp(lambda c: channels.spread(c, X.shape), ones)[1](jnp.asarray(X))
    np.testing.assert_allclose(back, X.astype(np.float64).sum((0, 1, 2)), rtol=1e-5)
    (back,) = jax.vjp(channels.total, jnp.asarray(X))[1](ones)
    np.testing.assert_array_equal(back, np.broadcast_to(ones, X.shape))
