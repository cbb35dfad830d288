"""Per-channel sums and broadcasts against NumPy in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.layers import broadcast_channels, channel_sums

X = np.random.default_rng(0).normal(size=(3, 9, 7, 5)).astype(np.float32)
VALUES = np.arange(5, dtype=np.float32)
methods = pytest.mark.parametrize("method", [None, "plain", "matmul"])


@methods
def test_sums_and_their_gradient(method):
    sums, back = jax.vjp(lambda x: channel_sums(x, method), jnp.asarray(X))
    np.testing.assert_allclose(sums, X.astype(np.float64).sum((0, 1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(back(jnp.asarray(VALUES))[0], np.broadcast_to(VALUES, X.shape))


@methods
def test_broadcasts_and_their_gradient(method):
    y, back = jax.vjp(lambda values: broadcast_channels(values, X.shape, method), jnp.asarray(VALUES))
    np.testing.assert_array_equal(y, np.broadcast_to(VALUES, X.shape))
    np.testing.assert_allclose(back(jnp.asarray(X))[0], X.astype(np.float64).sum((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(("backend", "products"), [("cpu", True), ("gpu", False)])
def test_products_are_used_on_cpus(monkeypatch, backend, products):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for function, argument in ((channel_sums, X), (lambda values: broadcast_channels(values, X.shape), VALUES)):
        # A function of its own each time: JAX remembers what it has traced.
        assert ("dot_general" in str(jax.make_jaxpr(lambda a, f=function: f(a))(jnp.asarray(argument)))) == products


@pytest.mark.parametrize(
    "call",
    [lambda: channel_sums(jnp.asarray(X), "fft"), lambda: broadcast_channels(jnp.asarray(VALUES), X.shape, "fft")],
)
def test_unknown_methods_are_refused(call):
    with pytest.raises(ValueError, match=r"method is 'fft'.*plain, matmul"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: channel_sums(np.array(1, np.float32)),
            r"x is float32\[\]; it must be floating point, \[\*cells, channels\]",
        ),
        (lambda: channel_sums(np.full((3, 2), 100, np.int8)), r"x is int8\[3, 2\]; it must be floating point"),
        (lambda: inspect.unwrap(channel_sums)("ab"), "x is of type str"),
        (lambda: broadcast_channels(VALUES, (2, 4)), r"channels have the shape \(5,\) and shape is \(2, 4\)"),
        (
            lambda: broadcast_channels(VALUES[:1], (2, 4), "plain"),
            r"channels have the shape \(1,\) and shape is \(2, 4\)",
        ),
        (lambda: broadcast_channels(VALUES[None], (2, 5)), r"channels have the shape \(1, 5\)"),
        (lambda: inspect.unwrap(broadcast_channels)(VALUES, 5), "and shape is 5"),
        (lambda: broadcast_channels(VALUES, ()), r"and shape is \(\)"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@methods
def test_no_cells_and_no_channels_have_empty_sums(method):
    np.testing.assert_array_equal(channel_sums(X[:0], method), np.zeros(5))
    assert channel_sums(X[..., :0], method).shape == (0,)
