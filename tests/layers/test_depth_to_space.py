"""Moving blocks of channels into space, against the definition element by element."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_loops import draw, with_gradients

from fcn_jax.layers import depth_to_space

METHODS = [None, "plain", "split"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("block", [(2, 3), (5, 1), (1, 4)])
def test_channels_and_their_gradients_come_to_their_places(block, method):
    x = draw(2, 2, 3, block[0] * block[1] * 2)
    g = draw(2, 2 * block[0], 3 * block[1], 2, seed=1)
    y, dx = with_gradients(lambda x: depth_to_space(x, block, method=method), g, x)
    assert y.shape == g.shape
    for b, i, j, c in np.ndindex(*y.shape):
        row, column = i % block[0], j % block[1]
        source = b, i // block[0], j // block[1], (row * block[1] + column) * 2 + c
        assert y[b, i, j, c] == x[source]
        assert dx[source] == g[b, i, j, c]


def test_one_axis_and_no_batch():
    x = draw(3, 12)
    np.testing.assert_array_equal(depth_to_space(x, (4,)), x.reshape(12, 3))


@pytest.mark.parametrize(("backend", "rows", "splits"), [("cpu", 4, True), ("cpu", 5, False), ("gpu", 4, False)])
def test_split_is_used_on_cpus_for_few_rows(monkeypatch, backend, rows, splits):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.ones((1, 2, 2, 2 * rows))
    tangent = jax.make_jaxpr(lambda x: jax.jvp(lambda x: depth_to_space(x, (rows, 2)), (x,), (x,)))(x)
    assert ("concatenate" in str(tangent)) == splits


ONE = np.ones((1, 4, 4, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: depth_to_space(ONE, 2), r"\(1, 4, 4, 2\); for the block \(2, 2\).*multiple of 4"),
        (lambda: inspect.unwrap(depth_to_space)(ONE, 2.0), r"block is 2.0; it must be an integer or 2 integers"),
        (lambda: depth_to_space(ONE, ()), r"block is \(\); it must be an integer"),
        (lambda: depth_to_space(ONE, (1, 2), method="fft"), "method is 'fft'.*plain, split"),
        (lambda: depth_to_space(ONE, (2,), method="split"), r"'split' needs two spatial axes and block is \(2,\)"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
