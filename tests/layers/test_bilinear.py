"""Bilinear upsampling against the transposed convolution's loop in float64, and against `jax.image`."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_loops import (
    assert_close,
    conv_transpose_loop,
    conv_transpose_loop_gradients,
    draw,
    export_for_every_size,
    measure_memory,
    quick_jit,
    with_gradients,
)

from fcn_jax.layers import ConvTranspose, bilinear_init, bilinear_kernel, conv_transpose_size, upsample_bilinear
from fcn_jax.layers.sizes import read_crops

ONE = np.ones((1, 4, 4, 2), np.float32)
METHODS = [None, "phases", "product", "elementwise", "plain"]


def reference_filter(height, width):
    """Compute `upsample_filt` of the reference value by value, with a size per axis."""
    values = np.zeros((height, width))
    for at in np.ndindex(height, width):
        values[at] = 1
        for i, size in zip(at, (height, width), strict=True):
            factor = (size + 1) // 2
            centre = factor - 1 if size % 2 == 1 else factor - 0.5
            values[at] *= 1 - abs(i - centre) / factor
    return values


@pytest.mark.parametrize("size", range(1, 10))
def test_filter_is_that_of_the_reference(size):
    kernel = bilinear_kernel(size)
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, reference_filter(size, size), rtol=1e-6)
    np.testing.assert_allclose(bilinear_kernel((size, 4)), reference_filter(size, 4), rtol=1e-6)


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 32])
def test_sizes_2s_and_2s_minus_1_keep_a_constant_and_size_s_does_not(stride):
    """At every phase of the stride the taps of one axis have to add up to one."""
    for size in (2 * stride, 2 * stride - 1):
        taps = np.zeros(2 * stride)
        taps[:size] = np.sqrt(np.diag(bilinear_kernel(size)))
        np.testing.assert_allclose(taps.reshape(2, stride).sum(0), 1.0, rtol=1e-6)
    taps = np.sqrt(np.diag(bilinear_kernel(stride)))  # one tap per phase
    assert np.ptp(taps) > 0.1 or taps.max() <= 0.5


@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (4, 5, 1, 3), (3, 3, 2, 4), (5, 2, 2), (3, 3, 1, 1)])
def test_initializer_maps_every_channel_to_itself(shape):
    kernel = np.asarray(bilinear_init(jax.random.key(0), shape, jnp.float32))
    *size, ins, outs = shape
    for i, o in np.ndindex(ins, outs):
        tent = bilinear_kernel(tuple(size)) if len(size) == 2 else bilinear_kernel((size[0], 1))[:, 0]
        np.testing.assert_array_equal(kernel[..., i, o], tent if i == o % ins else np.zeros(size))
    assert bilinear_init(None, shape, jnp.bfloat16).dtype == jnp.bfloat16


@st.composite
def upsampled(take):
    kernel, strides = (take(st.tuples(st.integers(1, top), st.integers(1, top))) for top in (9, 5))
    padding = take(
        st.one_of(st.none(), st.just("VALID"), st.tuples(*[st.tuples(st.integers(-3, 1), st.integers(-3, 1))] * 2))
    )
    return take(st.one_of(st.none(), st.just(kernel))), strides, padding


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(upsampled(), st.sampled_from(["float32", "bfloat16", "float64"]), st.sampled_from(METHODS))
def test_values_and_gradients_of_every_method_are_the_loop(case, dtype, method):
    kernel, strides, padding = case
    size = kernel or tuple(2 * s - s % 2 for s in strides)
    try:
        conv_transpose_size((4, 3), size, strides, padding or "SAME")
    except ValueError:
        padding = "VALID"
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(draw(2, 4, 3, 2), dtype)
        crops = read_crops(padding or "SAME", size, strides)
        weights = np.multiply.outer(reference_filter(*size), np.eye(2))
        want = conv_transpose_loop(x, weights, strides, crops)
        g = jnp.asarray(draw(*want.shape, seed=2), dtype)

        def forward(x):
            return upsample_bilinear(x, strides, kernel_size=kernel, padding=padding, method=method)

        y, dx = with_gradients(forward, g, x)
        assert_close(y, want, dtype, scale=2)  # bfloat16 is rounded after each axis
        want, _ = conv_transpose_loop_gradients(x, weights, strides, crops, (0, 0), 1, g)
        assert_close(dx, want, dtype, scale=4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stride", [2, 9, 16])
def test_every_method_has_the_values_and_gradients_of_the_plain_one(stride, method):
    x, g = draw(2, 3, 4, 2), draw(2, 3 * stride, 4 * stride, 2, seed=1)
    got, want = (with_gradients(lambda x, m=m: upsample_bilinear(x, stride, method=m), g, x) for m in (method, "plain"))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, scale=4)


@pytest.mark.parametrize(
    ("backend", "strides", "methods"),
    [
        ("cpu", (8, 2), ["phases", "phases"]),
        ("cpu", (2, 9), ["product", "phases"]),  # columns first
        ("gpu", (2, 9), ["elementwise", "elementwise"]),
    ],
)
def test_method_is_chosen_as_documented(monkeypatch, backend, strides, methods):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = []
    mixers = sys.modules["fcn_jax.layers.bilinear"]._MIXERS
    for name, mix in mixers.items():
        monkeypatch.setitem(mixers, name, lambda *a, name=name, mix=mix: chosen.append(name) or mix(*a))
    upsample_bilinear(ONE, strides)
    assert chosen == methods


@pytest.mark.parametrize("stride", [3, 4])
def test_interior_is_that_of_jax_image_resize(stride):
    x = jnp.asarray(draw(1, 5, 6, 2))
    border = stride // 2
    want = quick_jit(lambda x: jax.image.resize(x, (1, 5 * stride, 6 * stride, 2), "bilinear"))(x)
    got = quick_jit(lambda x: upsample_bilinear(x, stride))(x)
    inside = (slice(None), slice(border, -border), slice(border, -border))
    assert_close(got[inside], want[inside])
    assert np.abs(got - want)[:, 0].max() > 0.1  # at the border resize repeats the last value, this fades


@pytest.mark.parametrize("stride", [2, 5])
def test_odd_kernel_aligns_the_corners(stride):
    x = jnp.asarray(draw(1, 5, 6, 2))
    shape = (1, 4 * stride + 1, 5 * stride + 1, 2)
    shift = jnp.full(2, (1 - stride) / 2, jnp.float32)
    scale = jnp.full(2, float(stride))
    want, got = quick_jit(
        lambda x: (
            jax.image.scale_and_translate(x, shape, (1, 2), scale, shift, "linear", antialias=False),
            upsample_bilinear(x, stride, kernel_size=2 * stride - 1, padding=stride - 1),
        )
    )(x)
    assert_close(got, want, scale=4)
    np.testing.assert_array_equal(got[:, ::stride, ::stride], x)


def test_module_with_bilinear_init_is_upsample_bilinear():
    x = draw(1, 3, 4, 3)
    for groups in (1, 3):
        layer = ConvTranspose(3, (4, 4), 2, 1, use_bias=False, kernel_init=bilinear_init, feature_group_count=groups)
        assert_close(
            quick_jit(layer.init_with_output)(jax.random.key(0), x)[0], quick_jit(lambda x: upsample_bilinear(x, 2))(x)
        )


@pytest.mark.parametrize(
    ("stride", "method", "nan"),
    [(3, "phases", 0), (8, None, 0), (9, None, 440), (2, "elementwise", 20), (2, "plain", 0)],
)
def test_infinity_has_the_documented_effect(stride, method, nan):
    x = np.ones((1, 5, 5, 1), np.float32)
    reached = np.zeros((1, 5 * stride, 5 * stride, 1), bool)
    blocks = np.zeros_like(reached)
    x[:, 2, 2] = np.inf
    size = 2 * stride - stride % 2
    low = 2 * stride - (size - stride) // 2
    reached[:, low : low + size, low : low + size] = True
    blocks[:, stride : 4 * stride, stride : 4 * stride] = True
    y = np.asarray(quick_jit(lambda x: upsample_bilinear(x, stride, method=method))(x))
    assert np.isposinf(y[reached]).all()
    assert np.isnan(y[blocks & ~reached]).sum() == nan == np.isnan(y).sum()
    assert np.isfinite(y[~blocks]).all()


@pytest.mark.parametrize(
    ("stride", "n", "dtype", "limits"),
    [
        (2, 128, "float32", (1.0, 1.6)),
        (8, 64, "float32", (1 / 4, 1.6)),
        (16, 32, "float32", (1 / 4, 1.6)),
        (32, 16, "bfloat16", (2.0, 3.2)),
        (2, 128, "bfloat16", (2.0, 3.2)),
    ],
)
def test_memory_is_as_documented(stride, n, dtype, limits):
    shape = jax.ShapeDtypeStruct((1, n, n, 21), dtype)
    forward, both = measure_memory(lambda x: upsample_bilinear(x, stride), shape)
    assert forward <= 1.02 * limits[0]
    assert both <= limits[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bilinear_kernel(0), "size is 0; the smallest value allowed is 1"),
        (lambda: bilinear_init(None, (3, 3, 2, 3)), r"\(3, 3, 2, 3\); bilinear_init needs.*multiple of the inputs"),
        (lambda: bilinear_init(None, (0, 3, 2, 2)), r"shape is \(0, 3, 2, 2\); the smallest value allowed is 1"),
        (lambda: upsample_bilinear(ONE[0, 0], 2), r"x is float32\[4, 2\]; it must be floating point"),
        (lambda: upsample_bilinear(ONE.astype(int), 2), "must be floating point"),
        (lambda: upsample_bilinear(ONE, 2, kernel_size=0), "kernel_size is 0"),
        (lambda: upsample_bilinear(ONE, 1, padding=3), "the output would have the size"),
        (
            lambda: export_for_every_size(lambda x: upsample_bilinear(x, 1, kernel_size=1, padding=1)),
            r"the output would have the size \(h - 2, w - 2\)",
        ),
        (lambda: upsample_bilinear(ONE, 2, method="fft"), r"method is 'fft'.*plain, phases, product, elementwise"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
