"""Max pooling against a loop, PyTorch and Flax."""

import itertools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_loops import assert_close, draw, export_for_every_size, quick_jit, with_gradients

from fcn_jax.layers import max_pool

ONE = np.ones((1, 4, 4, 2), np.float32)


def max_pool_loop(x, window, strides, pads, counts):
    """Find the largest value of each window, and its first place; x: [batch, height, width, channel]."""
    y = np.zeros((x.shape[0], *counts, x.shape[3]))
    place = np.zeros((*y.shape, 2), int)
    for b, i, j, c in np.ndindex(*y.shape):
        rows = range(max(i * strides[0] - pads[0], 0), min(i * strides[0] - pads[0] + window[0], x.shape[1]))
        columns = range(max(j * strides[1] - pads[1], 0), min(j * strides[1] - pads[1] + window[1], x.shape[2]))
        best = max(itertools.product(rows, columns), key=lambda at: (x[b, at[0], at[1], c], -at[0], -at[1]))
        y[b, i, j, c], place[b, i, j, c] = x[b, best[0], best[1], c], best
    return y, place


@st.composite
def pools(take):
    window = take(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    return {
        "spatial": take(st.tuples(st.integers(1, 6), st.integers(1, 6))),
        "window": window,
        "strides": take(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "pads": tuple(take(st.tuples(*[st.integers(0, k - 1)] * 2)) for k in window),
        "ceil": take(st.booleans()),
        "dtype": take(st.sampled_from(["float32", "bfloat16"])),
        "method": take(st.sampled_from([None, "plain", "places"])),
    }


def count_windows(n, window, stride, low, high, ceil):
    """Count windows one by one."""
    count, start = 0, -low
    while start < n and (start + window <= n + high or (ceil and (count == 0 or start - stride + window < n + high))):
        count, start = count + 1, start + stride
    return count


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(pools())
def test_values_and_gradients_are_the_loop(case):
    axes = list(zip(case["spatial"], case["window"], case["strides"], *zip(*case["pads"], strict=True), strict=True))
    counts = [count_windows(*axis, case["ceil"]) for axis in axes]
    x = np.round(draw(2, *case["spatial"], 2) * 2)  # few values, so that windows have ties

    def forward(x):
        return max_pool(x, case["window"], case["strides"], case["pads"], ceil=case["ceil"], method=case["method"])

    if min(counts) < 1:
        with pytest.raises(ValueError, match="larger than the input"):
            forward(x)
        return
    y, place = max_pool_loop(x, case["window"], case["strides"], [low for low, _ in case["pads"]], counts)
    g = np.round(draw(*y.shape, seed=1) * 4)  # whole numbers add up exactly in every dtype
    got, dx = with_gradients(forward, jnp.asarray(g), jnp.asarray(x, case["dtype"]))
    np.testing.assert_array_equal(np.asarray(got, np.float64), y)
    want = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*y.shape):
        want[b, place[b, i, j, c, 0], place[b, i, j, c, 1], c] += g[b, i, j, c]
    np.testing.assert_array_equal(np.asarray(dx, np.float64), want)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize(
    ("window", "strides", "padding", "ceil"), [(2, 2, 0, True), (3, 2, 1, False), ((2, 3), 4, 0, True)]
)
def test_places_have_the_values_and_gradients_of_the_plain_method(window, strides, padding, ceil, dtype):
    x = jnp.asarray(np.round(draw(2, 9, 8, 3) * 2), dtype)  # few values, so that windows have ties
    got, want = (max_pool(x, window, strides, padding, ceil=ceil, method=m) for m in ("places", "plain"))
    np.testing.assert_array_equal(got, want)
    if dtype == "float32":
        g = jnp.asarray(np.round(draw(*want.shape, seed=1) * 4))
        got, want = (
            with_gradients(lambda x, m=m: max_pool(x, window, strides, padding, ceil=ceil, method=m), g, x)[1]
            for m in ("places", "plain")
        )
        np.testing.assert_array_equal(got, want)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "ceil"),
    [(8, 2, 2, 0, True), (7, 2, 2, 0, True), (7, 3, 2, 1, False), (8, 3, 2, 0, True), (1, 2, 2, 0, True)],
)
def test_values_and_gradients_of_ties_are_those_of_pytorch(size, window, stride, padding, ceil):
    torch = pytest.importorskip("torch")
    x = np.round(draw(2, size, size, 3))
    if size == 1:  # PyTorch refuses a window larger than the input
        np.testing.assert_array_equal(max_pool(x, window, stride, padding, ceil=ceil), x)
        return
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    want = torch.nn.functional.max_pool2d(tx, window, stride, padding, ceil_mode=ceil)
    g = draw(*want.shape, seed=1)
    want.backward(torch.tensor(g))
    y, dx = with_gradients(lambda x: max_pool(x, window, stride, padding, ceil=ceil), g.transpose(0, 2, 3, 1), x)
    np.testing.assert_array_equal(y, want.detach().numpy().transpose(0, 2, 3, 1))
    assert_close(dx, tx.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_values_are_those_of_flax(padding):
    x = jnp.asarray(draw(2, 3, 7, 6, 2))
    for window, strides in [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 3))]:
        np.testing.assert_array_equal(max_pool(x, window, strides, padding), nn.max_pool(x, window, strides, padding))


@pytest.mark.parametrize(
    "window", [(15, 17), (16, 16), *(pytest.param(w, marks=pytest.mark.slow) for w in [(2, 127), (20, 20)])]
)
def test_windows_have_more_places_than_a_byte_has_codes(window):
    """Every place is the largest once. A byte has codes for 254 places and two codes for none."""
    rows, columns = window
    x = np.zeros((rows * columns, rows + 1, columns + 1, 1), np.float32)
    at = np.arange(rows * columns)
    x[at, at // columns, at % columns] = 1
    # The strides do not divide the window, so that there are phases beyond it. There is one window in all.
    strides = (max(rows * 2 // 3, 2), columns * 2 // 3)
    y, dx = with_gradients(lambda x: max_pool(x, window, strides), np.ones((len(x), 1, 1, 1), np.float32), x)
    np.testing.assert_array_equal(y, np.ones_like(y))
    np.testing.assert_array_equal(dx, x)


@pytest.mark.parametrize(
    ("values", "padding", "place"),
    [
        ([1.0, np.nan, 2.0, 3.0], 0, 0),  # the largest before the NaN
        ([1.0, 2.0, np.nan, 3.0], 0, 1),
        ([np.nan, 2.0, 5.0, 3.0], 0, 0),  # the NaN itself
        ([-np.inf] * 4, 0, 0),
        ([-np.inf, -np.inf, -5.0, -np.inf], 0, 2),
        ([-np.inf] * 4, ((1, 0), (0, 0)), None),  # lost in the padding
        ([np.nan, 2.0, 5.0, 3.0], ((1, 0), (0, 0)), None),
        ([-5.0, -7.0, 5.0, 3.0], ((1, 0), (0, 0)), 0),
    ],
)
def test_gradients_of_nan_and_minus_infinity_go_to_the_documented_places(values, padding, place):
    x = np.array(values, np.float32).reshape(1, 2, 2, 1)
    want = np.zeros(4)
    if place is not None:
        want[place] = 1
    first = with_gradients(lambda x: max_pool(x, 2, 2, padding, ceil=True)[:, :1], np.ones((1, 1, 1, 1), np.float32), x)
    np.testing.assert_array_equal(first[1].ravel(), want)
    seen = x if padding == 0 else x[:, :1]
    np.testing.assert_array_equal(first[0].ravel(), [seen.max()])  # NaN where there is one


def test_integers_and_nan():
    x = np.arange(16).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(quick_jit(lambda x: max_pool(x, 2, padding=1))(-x)[0, :2, 0, 0], [0, -4])
    assert np.isnan(max_pool(jnp.array([1.0, np.nan, 2.0, 3.0]).reshape(2, 2, 1), 2)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_pool(ONE[0, 0], 2), r"x has the shape \(4, 2\)"),
        (lambda: max_pool(ONE > 0, 2), "x is bool; it must be floating point or integers.*uint8"),
        (lambda: export_for_every_size(lambda x: max_pool(x, 2)), r"larger than the input \(h, w\)"),
        (
            lambda: export_for_every_size(lambda x: max_pool(x, 1, 3, ceil=True)),
            "depends on what its symbols stand for",
        ),
        (lambda: max_pool(ONE, 2, 2, 2), r"padding 2 with the window \(2, 2\).*smaller than the window"),
        (lambda: max_pool(ONE, 2, 2, -1), "must be at least 0"),
        (lambda: max_pool(ONE, 5), r"window \(5, 5\) is larger than the input \(4, 4\).*ceil=True"),
        (
            lambda: export_for_every_size(lambda x: max_pool(x, 2, method="places"), "1, 2*h, 2*w, 1"),
            "'places' needs numbers there; leave method out",
        ),
        (lambda: max_pool(ONE, 2, method="fft"), r"method is 'fft'.*plain, places"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
