"""Transposed convolution against a loop in float64; its methods, their choice and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layer_loops import (
    assert_close,
    conv_transpose_loop,
    conv_transpose_loop_gradients,
    draw,
    measure_memory,
    quick_jit,
    with_gradients,
)

from fcn_jax.layers import ConvTranspose, conv_transpose, conv_transpose_methods, conv_transpose_size
from fcn_jax.layers.conv_transpose_methods import METHODS


@st.composite
def transposed(take):
    """Draw a transposed convolution with at least one output value."""
    two = st.tuples(st.integers(0, 1), st.integers(0, 1))
    kernel = take(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    strides = take(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    spatial = take(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    extra = tuple(min(e, s - 1) for e, s in zip(take(two), strides, strict=True))
    groups, ins, outs = take(st.sampled_from([(1, 2, 3), (1, 3, 1), (2, 4, 2), (3, 3, 3), (2, 2, 6)]))
    crops = take(st.tuples(*[st.tuples(st.integers(-3, 4), st.integers(-3, 4))] * 2))
    sizes = [(n - 1) * s + k - sum(c) + e for n, s, k, c, e in zip(spatial, strides, kernel, crops, extra, strict=True)]
    crops = tuple(c if size > 0 else (0, 0) for c, size in zip(crops, sizes, strict=True))
    return {
        "x": (take(st.integers(1, 2)), *spatial, ins),
        "kernel": (*kernel, ins // groups, outs),
        "strides": strides,
        "crops": crops,
        "extra": extra,
        "groups": groups,
        "method": take(st.sampled_from([None, "matmul", "conv", "rows", "plain"])),
        "dtype": take(st.sampled_from(["float32", "float32", "bfloat16", "float64"])),
        "seed": take(st.integers(0, 1000)),
    }


def check_transposed(case):
    """Compare the result and both gradients."""
    strides, crops, extra, groups = (case[k] for k in ("strides", "crops", "extra", "groups"))
    with jax.enable_x64(case["dtype"] == "float64"):
        # Rounded once here, so that the comparison sees the rounding of the computation alone.
        x = jnp.asarray(draw(*case["x"], seed=case["seed"]), case["dtype"])
        kernel = jnp.asarray(draw(*case["kernel"], seed=case["seed"] + 1), case["dtype"])
        want = conv_transpose_loop(x, kernel, strides, crops, extra, groups)
        g = jnp.asarray(draw(*want.shape, seed=case["seed"] + 2), case["dtype"])

        def forward(x, kernel):
            return conv_transpose(
                x,
                kernel,
                strides,
                crops,
                output_padding=extra,
                feature_group_count=groups,
                method=case["method"],
            )

        y, dx, dk = with_gradients(forward, g, x, kernel)
        assert y.dtype == x.dtype
        assert_close(y, want, case["dtype"])
        # Gradients in bfloat16 add up partial sums of that dtype where taps or phases overlap.
        for got, ref in zip(
            (dx, dk), conv_transpose_loop_gradients(x, kernel, strides, crops, extra, groups, g), strict=True
        ):
            assert_close(got, ref, case["dtype"], scale=4)


# With a padding that is negative at the low end and positive at the high end XLA would read beyond its arrays.
BEYOND = {"x": (1, 3, 2, 8), "kernel": (3, 3, 8, 8), "strides": (1, 1), "crops": ((-1, 1), (-1, 1)), "extra": (0, 0)}
# If the convolution dilates its input itself, XLA's CPU compiler aborts on the kernel's gradient.
FOLDED = {"x": (1, 3, 1, 2), "kernel": (2, 3, 2, 3), "strides": (2, 1), "crops": ((2, 1), (0, 1)), "extra": (0, 0)}


@example({**FOLDED, "groups": 1, "method": "plain", "dtype": "float64", "seed": 184})
@example({**BEYOND, "groups": 1, "method": None, "dtype": "float32", "seed": 0})
@settings(max_examples=35, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_values_and_gradients_are_the_loop(case):
    check_transposed(case)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_values_and_gradients_are_the_loop_at_length(case):
    check_transposed(case)


def test_one_axis_and_any_number_of_batch_axes():
    x, kernel = draw(2, 3, 4, 5, 2), draw(4, 2, 3, seed=1)
    y = conv_transpose(x, kernel, 2, ((1, -2),))
    want = conv_transpose_loop(x.reshape(24, 5, 1, 2), kernel[:, None], (2, 1), ((1, -2), (0, 0)), (0, 0))
    assert_close(y, want.reshape(2, 3, 4, 13, 3))
    assert_close(conv_transpose(x[0, 0, 0], kernel, 2, ((1, -2),)), y[0, 0, 0])
    assert conv_transpose(x[:0], kernel, 2, 1).shape == (0, 3, 4, 10, 3)


def test_three_axes():
    x, kernel = draw(1, 2, 3, 2, 2), draw(3, 3, 3, 2, 2, seed=1)
    want = jax.lax.conv_transpose(x, kernel, (2, 1, 3), "SAME")
    assert_close(conv_transpose(x, kernel, (2, 1, 3), "SAME"), want)


def test_negative_padding_extends_with_zeros_that_get_the_bias():
    x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((2, 2, 1, 1))
    y = conv_transpose(x, kernel, 2, ((-1, 0), (0, -3)), bias=jnp.array([0.5]))
    want = np.full((1, 5, 7, 1), 0.5)
    want[:, 1:, :4] = 1.5
    np.testing.assert_array_equal(y, want)


def test_an_output_entirely_beyond_the_input_is_zero():
    for method in ("matmul", "conv", "rows", "plain"):
        y = conv_transpose(jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1)), 2, ((7, -9),), method=method)
        np.testing.assert_array_equal(y, np.zeros((1, 7, 1)))


@pytest.mark.parametrize("method", [None, "matmul", "conv", pytest.param("rows", marks=pytest.mark.slow), "plain"])
@pytest.mark.parametrize(("ins", "outs", "groups"), [(16, 64, 1), (64, 8, 1), (16, 32, 4)])
def test_bfloat16_is_rounded_once(ins, outs, groups, method):
    """The error is at most half a unit in the last place, 2**-9 to 2**-8 of the value.

    Sums that are rounded tap by tap have larger errors.
    """
    x = jnp.asarray(draw(1, 4, 4, ins), jnp.bfloat16)
    kernel = jnp.asarray(draw(4, 4, ins // groups, outs, seed=1), jnp.bfloat16)
    want = conv_transpose_loop(x, kernel, (2, 2), ((1, 1), (1, 1)), (0, 0), groups)
    y = quick_jit(lambda x, kernel: conv_transpose(x, kernel, 2, 1, feature_group_count=groups, method=method))(
        x, kernel
    )
    half = 2.0 ** (np.floor(np.log2(np.abs(want))) - 8)
    assert (np.abs(np.asarray(y, np.float64) - want) <= half + 1e-5).all()


@pytest.mark.parametrize(
    ("backend", "kernel", "stride", "channels", "groups", "method"),
    [
        ("cpu", 64, 32, (21, 21), 1, "matmul"),
        ("gpu", 4, 2, (21, 21), 1, "matmul"),
        ("tpu", 4, 2, (21, 21), 1, "rows"),
        ("tpu", 4, 2, (21, 21), 21, "conv"),
        ("tpu", 3, 1, (21, 21), 1, "plain"),
        ("cpu", 3, 1, (8, 8), 1, "plain"),
        ("cpu", 3, 1, (8, 8), 8, "plain"),
        ("cpu", 3, 1, (8, 8), 4, "matmul"),
        ("cpu", 3, 2, (8, 8), 8, "matmul"),
        ("gpu", 3, 1, (8, 8), 8, "plain"),
        ("cpu", 9, 2, (8, 8), 1, "conv"),  # patches 25 / 4 of the output
        ("cpu", 8, 2, (8, 8), 1, "matmul"),  # exactly 4
        ("cpu", 4, 2, (512, 21), 1, "conv"),
    ],
)
def test_method_is_chosen_as_documented(monkeypatch, backend, kernel, stride, channels, groups, method):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = []
    for name in METHODS:
        monkeypatch.setitem(METHODS, name, lambda *a, name=name: chosen.append(name) or jnp.zeros((1, 2, 2, 3)))
    x, w = np.zeros((1, 5, 5, channels[0]), np.float32), np.zeros((kernel, kernel, channels[0] // groups, channels[1]))
    conv_transpose(x, w.astype(np.float32), stride, 0, feature_group_count=groups)
    assert chosen == [method]


@pytest.mark.parametrize(
    ("kernel", "stride", "n", "groups", "method", "dtype"),
    [
        (64, 32, 8, 1, None, "float32"),
        (16, 8, 32, 1, None, "float32"),
        (4, 2, 128, 1, None, "float32"),
        (4, 2, 64, 1, "conv", "float32"),
        (4, 2, 64, 1, "rows", "float32"),
        (4, 2, 64, 1, "plain", "float32"),
        (3, 1, 64, 1, "plain", "float32"),
        (4, 2, 64, 1, None, "bfloat16"),
        (4, 2, 64, 1, "plain", "bfloat16"),
        (3, 1, 64, 1, "plain", "bfloat16"),
        (9, 2, 64, 21, None, "float32"),
        (9, 2, 64, 21, "plain", "float32"),
    ],
)
def test_memory_is_as_documented(kernel, stride, n, groups, method, dtype):
    x = jax.ShapeDtypeStruct((1, n, n, 21), dtype)
    w = jax.ShapeDtypeStruct((kernel, kernel, 21 // groups, 21), dtype)
    forward, both = measure_memory(
        lambda x, w: conv_transpose(x, w, stride, "SAME", feature_group_count=groups, method=method), x, w
    )
    whole = ((n + 1) / n) ** 2  # the blocks reach beyond the border by less than one stride
    weights = kernel**2 * w.shape[2] * 21 / (21 * (n * stride) ** 2)
    patches = whole * (-(-kernel // stride)) ** 2 / stride**2
    if method == "plain":
        few = (0.02, 1.1) if stride == 1 else (1.02, 2.1)
        limits = few if dtype == "float32" else (4.1, 6.2)
    elif method in ("conv", "rows"):
        limits = (1.05 * whole, 3.5 * whole)
    else:
        wide = 2 if dtype == "bfloat16" else 1
        limits = (1.1 * wide * (whole + 2 * patches + 2 * weights), 3.1 * wide * (whole + patches + weights))
    assert forward <= limits[0]
    assert both <= limits[1]


@pytest.mark.parametrize("kernel", [(4, 3), (5, 8), (1, 2)])
@pytest.mark.parametrize("crop", [((0, 0), (0, 0)), ((1, 2), (1, 1)), ((2, 0), (0, 0))])
def test_on_tpus_the_convolution_itself_inserts_zeros_between_columns(monkeypatch, kernel, crop):
    """The form for TPUs runs on the CPU, forward. Its gradients are JAX's."""
    monkeypatch.setattr(conv_transpose_methods, "is_cpu", lambda: False)
    x, w = draw(2, 5, 4, 3), draw(*kernel, 3, 6, seed=1)

    def forward(x, w):
        return conv_transpose(x, w, (2, 3), crop, method="rows")

    (program,) = [e for e in jax.make_jaxpr(forward)(x, w).eqns if e.primitive.name == "conv_general_dilated"]
    assert program.params["lhs_dilation"] == (1, 3)
    want = conv_transpose_loop(x, w, (2, 3), crop, (0, 0), 1)
    np.testing.assert_allclose(forward(x, w), want, atol=1e-5)


def test_module_has_dtypes_groups_and_axes():
    layer = ConvTranspose(6, 3, feature_group_count=2, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.ones((2, 7, 4)))
    assert y.dtype == jnp.bfloat16
    assert y.shape == (2, 7, 6)
    assert jax.tree.map(lambda p: (p.shape, str(p.dtype)), variables["params"]) == {
        "kernel": ((3, 2, 6), "float32"),
        "bias": ((6,), "float32"),
    }


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("method", ["matmul", "conv", "rows", "dilated", None])
def test_every_method_has_the_values_and_gradients_of_the_plain_one(method, groups):
    x, kernel = draw(2, 5, 4, 4), draw(4, 3, 4 // groups, 6, seed=1)
    g = draw(2, *conv_transpose_size((5, 4), (4, 3), (2, 3), "SAME"), 6, seed=2)

    def run(method):
        def forward(x, kernel):
            return conv_transpose(x, kernel, (2, 3), feature_group_count=groups, method=method)

        return with_gradients(forward, g, x, kernel)

    for got, want in zip(run(method), run("plain"), strict=True):
        assert_close(got, want, scale=4)
