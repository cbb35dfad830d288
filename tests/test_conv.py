"""The convolution made for CPUs against `lax.conv_general_dilated` and against a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fcn_jax import conv

# height, width, kernel, stride, padding: large and small maps, one smaller than the kernel, and just as large.
CASES = {
    "large": (13, 11, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "strided": (12, 9, (7, 7), (2, 2), ((3, 3), (3, 3))),
    "uneven": (9, 10, (2, 3), (2, 1), ((0, 2), (1, 0))),
    "1x1": (8, 7, (1, 1), (2, 2), ((0, 0), (0, 0))),
    "small": (5, 6, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "smaller than the kernel": (2, 40, (5, 5), (1, 1), ((2, 2), (2, 2))),
    "one pixel": (1, 1, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "unpadded": (7, 7, (7, 7), (1, 1), ((0, 0), (0, 0))),
}


def arrays(height, width, kernel):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(2, height, width, 3)).astype(np.float32),
        rng.normal(size=(*kernel, 3, 4)).astype(np.float32),
    )


@pytest.fixture(params=["at once", "a row at a time"])
def memory(request, monkeypatch):
    if request.param == "a row at a time":
        monkeypatch.setattr(conv, "LARGE_PATCHES", 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(case, memory):
    height, width, window, strides, padding = case
    x, kernel = arrays(height, width, window)
    ours = functools.partial(conv.conv_general_dilated, window_strides=strides, padding=padding)
    peers = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=conv.LAYOUT
    )
    one, one_back = jax.vjp(ours, x, kernel)
    two, two_back = jax.vjp(peers, x, kernel)
    np.testing.assert_allclose(one, two, atol=1e-4)
    gradient = np.random.default_rng(1).normal(size=one.shape).astype(np.float32)
    for a, b in zip(one_back(gradient), two_back(gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # Forward mode, in one argument and in both.
    _, pushed = jax.jvp(functools.partial(ours, x), (kernel,), (kernel,))
    np.testing.assert_allclose(pushed, two, atol=1e-4)
    _, pushed = jax.jvp(ours, (x, kernel), (x, kernel))
    np.testing.assert_allclose(pushed, 2 * two, atol=1e-4)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_definition(case):
    height, width, window, strides, padding = case
    x, kernel = arrays(height, width, window)
    padded = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    rows = range(0, padded.shape[1] - window[0] + 1, strides[0])
    columns = range(0, padded.shape[2] - window[1] + 1, strides[1])
    expected = np.zeros((2, len(rows), len(columns), 4))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            seen = padded[:, row : row + window[0], column : column + window[1]]
            expected[:, i, j] = np.tensordot(seen, kernel.astype(np.float64), 3)
    np.testing.assert_allclose(conv.conv_general_dilated(x, kernel, strides, padding), expected, atol=1e-4)


def test_second_derivatives():
    x, kernel = arrays(5, 6, (3, 3))

    def loss(function, kernel):
        return jnp.sum(function(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=conv.LAYOUT) ** 3)

    def curvature(function):
        return jax.grad(lambda k: jnp.sum(jax.grad(functools.partial(loss, function))(k) ** 2))(kernel)

    ours, peers = curvature(conv.conv_general_dilated), curvature(lax.conv_general_dilated)
    np.testing.assert_allclose(ours, peers, rtol=1e-3, atol=1e-3 * np.abs(peers).max())


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2},
        {"groups": 3},
        {"padding": "SAME"},
        {"layout": ("NWHC", "WHIO", "NWHC")},
        {"dtype": jnp.bfloat16},
    ],
    ids=str,
)
def test_the_rest_is_left_to_lax(options):
    x, kernel = arrays(9, 8, (3, 3))
    groups, dilation, dtype = options.get("groups", 1), options.get("dilation", 1), options.get("dtype", jnp.float32)
    kernel = np.tile(kernel[:, :, : 3 // groups], (1, 1, 1, 3))
    arguments = (jnp.asarray(x, dtype), jnp.asarray(kernel, dtype), (1, 1), options.get("padding", ((1, 1), (1, 1))))
    settings = {
        "rhs_dilation": (dilation, dilation),
        "dimension_numbers": options.get("layout", conv.LAYOUT),
        "feature_group_count": groups,
    }
    ours, peers = (f(*arguments, **settings) for f in (conv.conv_general_dilated, lax.conv_general_dilated))
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, peers)


def test_module_is_flax_conv():
    x, _ = arrays(6, 7, (3, 3))
    module = conv.Conv(4, (3, 3), strides=2, padding=1)
    variables = module.init(jax.random.key(0), x)
    peers = module.clone(conv_general_dilated=None)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, peers.init(jax.random.key(0), x))
    np.testing.assert_allclose(module.apply(variables, x), peers.apply(variables, x), atol=1e-5)
