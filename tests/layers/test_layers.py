"""`fcn_jax.layers` against plain definitions: loops over a float64 array, PyTorch, Flax, `jax.image`."""

import doctest
import functools
import inspect
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_jax import layers
from fcn_jax.layers import (
    ConvTranspose,
    bilinear_init,
    bilinear_kernel,
    conv_transpose,
    conv_transpose_padding,
    conv_transpose_size,
    convolutionalize,
    depth_to_space,
    max_pool,
    shift_and_stitch,
    upsample_bilinear,
)

# Compiled without LLVM's optimisations: most of these tests' time is the compiler's.
quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)
RELATIVE = {"float32": 2e-6, "bfloat16": 2.0**-8, "float64": 1e-14}


# ----------------------------------------------------------------------------------------------- definitions


def scatter(x, kernel, strides, crops, extra, groups=1):
    """Transposed convolution as its definition has it: every input value places a kernel; float64, 2-D."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)[::-1, ::-1]
    (sh, sw), (kh, kw) = strides, kernel.shape[:2]
    batch, height, width, ins = x.shape
    ins, outs = ins // groups, kernel.shape[-1] // groups
    full = np.zeros((batch, (height - 1) * sh + kh, (width - 1) * sw + kw, groups * outs))
    for g, i, j in itertools.product(range(groups), range(height), range(width)):
        here = np.einsum("bc,hwco->bhwo", x[:, i, j, g * ins : (g + 1) * ins], kernel[..., g * outs : (g + 1) * outs])
        full[:, i * sh : i * sh + kh, j * sw : j * sw + kw, g * outs : (g + 1) * outs] += here
    return crop(full, [(low, high - e) for (low, high), e in zip(crops, extra, strict=True)])


def crop(full, crops):
    """Takes `crops` off axes 1 and 2; what is negative is added as zeros."""
    full = np.pad(full, [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in crops), (0, 0)])
    (top, bottom), (left, right) = [(max(a, 0), max(b, 0)) for a, b in crops]
    return full[:, top : full.shape[1] - bottom, left : full.shape[2] - right]


def gradients(x, kernel, strides, crops, extra, groups, g):
    """Both gradients of ``sum(scatter(x, kernel) * g)``, read off its loop: what was added to is read from."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)[::-1, ::-1]
    (sh, sw), (kh, kw) = strides, kernel.shape[:2]
    ins, outs = x.shape[-1] // groups, kernel.shape[-1] // groups
    g = crop(np.asarray(g, np.float64), [(-low, e - high) for (low, high), e in zip(crops, extra, strict=True)])
    dx, dk = np.zeros_like(x), np.zeros_like(kernel)
    for n, i, j in itertools.product(range(groups), range(x.shape[1]), range(x.shape[2])):
        a, b = slice(n * ins, (n + 1) * ins), slice(n * outs, (n + 1) * outs)
        seen = g[:, i * sh : i * sh + kh, j * sw : j * sw + kw, b]
        dx[:, i, j, a] = np.einsum("bhwo,hwco->bc", seen, kernel[..., b])
        dk[..., b] += np.einsum("bc,bhwo->hwco", x[:, i, j, a], seen)
    return dx, dk[::-1, ::-1]


def reference_filter(size):
    """The formula of the reference's `upsample_filt`, value by value."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    values = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        values[i, j] = (1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor)
    return values


def pooled(x, window, strides, pads, counts):
    """Max pooling and the place of the first largest value, by loops; x: [batch, height, width, channel]."""
    y = np.zeros((x.shape[0], *counts, x.shape[3]))
    place = np.zeros((*y.shape, 2), int)
    for b, i, j, c in np.ndindex(*y.shape):
        rows = range(max(i * strides[0] - pads[0], 0), min(i * strides[0] - pads[0] + window[0], x.shape[1]))
        columns = range(max(j * strides[1] - pads[1], 0), min(j * strides[1] - pads[1] + window[1], x.shape[2]))
        best = max(itertools.product(rows, columns), key=lambda at: (x[b, at[0], at[1], c], -at[0], -at[1]))
        y[b, i, j, c], place[b, i, j, c] = x[b, best[0], best[1], c], best
    return y, place


def close(got, want, dtype="float32", scale=1.0):
    """Within rounding of the largest value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    largest = max(np.abs(want).max(initial=0.0), 1.0)
    np.testing.assert_allclose(got, want, rtol=0, atol=scale * RELATIVE[str(dtype)] * largest)


def with_gradients(forward, g, *args):
    """The result and the gradients of ``sum(result * g)``, in one compiled function."""

    @quick
    def run(g, *args):
        y, back = jax.vjp(forward, *args)
        return y, *back(g.astype(y.dtype))

    return run(g, *args)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# -------------------------------------------------------------------------------------------------- examples


def test_every_public_name_has_an_example_and_every_example_holds():
    mine = {n for n, v in vars(layers).items() if getattr(v, "__module__", "") == layers.__name__ and callable(v)}
    assert sorted(n for n in mine if not n.startswith("_")) == sorted(layers.__all__)
    for name in layers.__all__:
        assert ">>>" in inspect.getdoc(getattr(layers, name)), name
    failed, tried = doctest.testmod(layers)
    assert tried >= 20
    assert failed == 0


def test_the_file_stands_alone():
    source = inspect.getsource(layers)
    roots = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert roots <= {"__future__", "functools", "math", "operator", "collections", "typing", "flax", "jax", "numpy"}


# ----------------------------------------------------------------------------------- transposed convolution


@st.composite
def transposed(draw):
    """A transposed convolution with at least one output value."""
    two = st.tuples(st.integers(0, 1), st.integers(0, 1))
    kernel = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    strides = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    spatial = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    extra = tuple(min(e, s - 1) for e, s in zip(draw(two), strides, strict=True))
    groups, ins, outs = draw(st.sampled_from([(1, 2, 3), (1, 3, 1), (2, 4, 2), (3, 3, 3), (2, 2, 6)]))
    crops = draw(st.tuples(*[st.tuples(st.integers(-3, 4), st.integers(-3, 4))] * 2))
    sizes = [(n - 1) * s + k - sum(c) + e for n, s, k, c, e in zip(spatial, strides, kernel, crops, extra, strict=True)]
    crops = tuple(c if size > 0 else (0, 0) for c, size in zip(crops, sizes, strict=True))
    return {
        "x": (draw(st.integers(1, 2)), *spatial, ins),
        "kernel": (*kernel, ins // groups, outs),
        "strides": strides,
        "crops": crops,
        "extra": extra,
        "groups": groups,
        "method": draw(st.sampled_from([None, None, "matmul", "conv", "dilated"])),
        "dtype": draw(st.sampled_from(["float32", "float32", "bfloat16", "float64"])),
        "seed": draw(st.integers(0, 1000)),
    }


def check_transposed(case):
    """Forward and both gradients, in one compiled function."""
    strides, crops, extra, groups = (case[k] for k in ("strides", "crops", "extra", "groups"))
    with jax.enable_x64(case["dtype"] == "float64"):
        # Rounded once here, so that the comparison sees the rounding of the computation alone.
        x = jnp.asarray(numbers(*case["x"], seed=case["seed"]), case["dtype"])
        kernel = jnp.asarray(numbers(*case["kernel"], seed=case["seed"] + 1), case["dtype"])
        want = scatter(x, kernel, strides, crops, extra, groups)
        g = jnp.asarray(numbers(*want.shape, seed=case["seed"] + 2), case["dtype"])

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
        close(y, want, case["dtype"])
        # Gradients in bfloat16 add up partial sums of that dtype where taps or phases overlap.
        for got, ref in zip((dx, dk), gradients(x, kernel, strides, crops, extra, groups, g), strict=True):
            close(got, ref, case["dtype"], scale=4)


# Padding that is negative at the low end and positive at the high one: read beyond the arrays by an XLA convolution.
BEYOND = {"x": (1, 3, 2, 8), "kernel": (3, 3, 8, 8), "strides": (1, 1), "crops": ((-1, 1), (-1, 1)), "extra": (0, 0)}
# XLA's CPU compiler aborts on the kernel's gradient if the input is dilated by the convolution itself.
FOLDED = {"x": (1, 3, 1, 2), "kernel": (2, 3, 2, 3), "strides": (2, 1), "crops": ((2, 1), (0, 1)), "extra": (0, 0)}


@example({**FOLDED, "groups": 1, "method": "dilated", "dtype": "float64", "seed": 184})
@example({**BEYOND, "groups": 1, "method": None, "dtype": "float32", "seed": 0})
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_conv_transpose_is_the_scatter_loop(case):
    check_transposed(case)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_conv_transpose_is_the_scatter_loop_at_length(case):
    check_transposed(case)


@st.composite
def peers(draw):
    """One or two axes, every kernel and stride, any groups, and a padding that leaves something of the output."""
    axes = draw(st.sampled_from([1, 2, 2]))
    kernel, strides, spatial = (tuple(draw(st.tuples(*[st.integers(1, top)] * axes))) for top in (9, 5, 4))
    extra = tuple(draw(st.integers(0, s - 1)) for s in strides)
    sizes = [(n - 1) * s + k + e for n, s, k, e in zip(spatial, strides, kernel, extra, strict=True)]
    padding = tuple(draw(st.integers(0, min(8, (size - 1) // 2))) for size in sizes)
    # Groups, inputs and outputs of a group: dense, grouped, depthwise with one and with several outputs.
    channels = draw(st.sampled_from([(1, 2, 3), (1, 3, 1), (2, 2, 3), (2, 3, 1), (4, 1, 1), (3, 1, 2)]))
    return kernel, strides, spatial, padding, extra, channels, draw(st.integers(0, 1000))


def check_against_pytorch(case):
    """Result and gradients of input, kernel and bias, in float64."""
    torch = pytest.importorskip("torch")
    kernel, strides, spatial, padding, extra, (groups, ins, outs), seed = case
    axes = len(kernel)
    rng = np.random.default_rng(seed)
    x, weight, bias = (  # [batch, channel, *spatial] and [in, out / groups, *kernel]
        rng.normal(size=shape)
        for shape in ((2, groups * ins, *spatial), (groups * ins, outs, *kernel), (groups * outs,))
    )
    peer = torch.nn.functional.conv_transpose1d if axes == 1 else torch.nn.functional.conv_transpose2d
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, weight, bias)]
    want = peer(*leaves, strides, padding, extra, groups)
    g = rng.normal(size=want.shape)
    want.backward(torch.tensor(g))

    def forward(x, weight, bias):
        kernel = weight.reshape(groups, ins, outs, *weight.shape[2:])
        kernel = jnp.flip(kernel, range(3, 3 + axes))
        kernel = kernel.transpose(*range(3, 3 + axes), 1, 0, 2).reshape(*weight.shape[2:], ins, groups * outs)
        y = conv_transpose(
            jnp.moveaxis(x, 1, -1),
            kernel,
            strides,
            padding,
            output_padding=extra,
            feature_group_count=groups,
            bias=bias,
        )
        return jnp.moveaxis(y, -1, 1)

    with jax.enable_x64(True):
        y, *grads = with_gradients(forward, jnp.asarray(g), *map(jnp.asarray, (x, weight, bias)))
    assert y.dtype == np.float64
    assert y.shape[2:] == tuple(conv_transpose_size(spatial, kernel, strides, padding, extra))
    close(y, want.detach(), "float64", scale=2)
    for got, leaf in zip(grads, leaves, strict=True):
        close(got, leaf.grad, "float64", scale=8)


@example(((4, 4), (2, 2), (5, 3), (1, 1), (0, 0), (4, 1, 1), 0))
@example(((2, 1), (3, 5), (4, 3), (0, 2), (2, 0), (1, 2, 3), 0))
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(peers())
def test_conv_transpose_and_its_gradients_are_pytorch_s(case):
    check_against_pytorch(case)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(peers())
def test_conv_transpose_and_its_gradients_are_pytorch_s_at_length(case):
    check_against_pytorch(case)


def check_against_flax(kernel, strides, padding, seed):
    """Result and gradients of input, kernel and bias, with the very same parameters."""
    ours, flax = (layer(3, kernel, strides, padding) for layer in (ConvTranspose, nn.ConvTranspose))
    x = numbers(2, *(4, 3)[: len(kernel)], 2, seed=seed)
    params = {"params": {"kernel": numbers(*kernel, 2, 3, seed=seed + 1), "bias": numbers(3, seed=seed + 2)}}
    g = numbers(*jax.eval_shape(flax.apply, params, x).shape, seed=seed + 3)
    results = (with_gradients(layer.apply, g, params, x) for layer in (ours, flax))
    jax.tree.map(functools.partial(close, scale=4), *results)


sides = st.tuples(st.integers(1, 9), st.integers(1, 5))  # kernel and stride of an axis


@example([(2, 3), (9, 1)], "VALID", 0)
@example([(1, 5), (4, 2)], "SAME", 0)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.lists(sides, min_size=1, max_size=2), st.sampled_from(["SAME", "VALID"]), st.integers(0, 1000))
def test_same_and_valid_and_their_gradients_are_those_of_flax(axes, padding, seed):
    check_against_flax(*zip(*axes, strict=True), padding, seed)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", range(1, 6))
def test_every_kernel_with_same_and_valid_is_flax_s(stride, padding):
    for kernel in range(1, 10):
        check_against_flax((kernel,), (stride,), padding, kernel)
        check_against_flax((kernel, 10 - kernel), (stride, 6 - stride), padding, kernel)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(64, 32, (16, 16)), (5, 2, (1, 3)), (3, 1, (0, 1)), (2, 5, (-2, 0))]
)
def test_the_explicit_padding_of_flax_is_kernel_minus_1_minus_ours(kernel, stride, padding):
    theirs = tuple(kernel - 1 - p for p in padding)
    ours, flax = (
        layer(2, (kernel, kernel), (stride, stride), padding=(pair, pair))
        for layer, pair in ((ConvTranspose, padding), (nn.ConvTranspose, theirs))
    )
    x = numbers(1, 3, 4, 2)
    params = {"params": {"kernel": numbers(kernel, kernel, 2, 2, seed=1), "bias": numbers(2, seed=2)}}
    close(quick(ours.apply)(params, x), quick(flax.apply)(params, x))


def test_the_parameters_start_as_in_flax():
    for bias in (True, False):
        ours, flax = (
            quick(layer(3, (4, 3), (2, 2), use_bias=bias).init)(jax.random.key(0), jnp.ones((1, 3, 4, 2)))
            for layer in (ConvTranspose, nn.ConvTranspose)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, flax)


def test_one_axis_and_any_number_of_batch_axes():
    x, kernel = numbers(2, 3, 4, 5, 2), numbers(4, 2, 3, seed=1)
    y = conv_transpose(x, kernel, 2, ((1, -2),))
    want = scatter(x.reshape(24, 5, 1, 2), kernel[:, None], (2, 1), ((1, -2), (0, 0)), (0, 0))
    close(y, want.reshape(2, 3, 4, 13, 3))
    close(conv_transpose(x[0, 0, 0], kernel, 2, ((1, -2),)), y[0, 0, 0])
    assert conv_transpose(x[:0], kernel, 2, 1).shape == (0, 3, 4, 10, 3)


def test_three_axes():
    x, kernel = numbers(1, 2, 3, 2, 2), numbers(3, 3, 3, 2, 2, seed=1)
    want = jax.lax.conv_transpose(x, kernel, (2, 1, 3), "SAME")
    close(conv_transpose(x, kernel, (2, 1, 3), "SAME"), want)


def test_negative_padding_extends_with_zeros_that_get_the_bias():
    x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((2, 2, 1, 1))
    y = conv_transpose(x, kernel, 2, ((-1, 0), (0, -3)), bias=jnp.array([0.5]))
    want = np.full((1, 5, 7, 1), 0.5)
    want[:, 1:, :4] = 1.5
    np.testing.assert_array_equal(y, want)


def test_an_output_entirely_beyond_the_input_is_zero():
    for method in ("matmul", "conv", "dilated"):
        y = conv_transpose(jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1)), 2, ((7, -9),), method=method)
        np.testing.assert_array_equal(y, np.zeros((1, 7, 1)))


@pytest.mark.parametrize("method", [None, "matmul", "conv", "dilated"])
@pytest.mark.parametrize(("ins", "outs", "groups"), [(16, 64, 1), (64, 8, 1), (16, 32, 4)])
def test_bfloat16_is_rounded_once(ins, outs, groups, method):
    """Half a unit in the last place and no more: 8 bits, so 2**-9 to 2**-8 of the value. A sum that is rounded on the
    way, tap by tap, is off by more.
    """
    x = jnp.asarray(numbers(1, 4, 4, ins), jnp.bfloat16)
    kernel = jnp.asarray(numbers(4, 4, ins // groups, outs, seed=1), jnp.bfloat16)
    want = scatter(x, kernel, (2, 2), ((1, 1), (1, 1)), (0, 0), groups)
    y = quick(lambda x, kernel: conv_transpose(x, kernel, 2, 1, feature_group_count=groups, method=method))(x, kernel)
    half = 2.0 ** (np.floor(np.log2(np.abs(want))) - 8)
    assert (np.abs(np.asarray(y, np.float64) - want) <= half + 1e-5).all()


@pytest.mark.parametrize(
    ("backend", "kernel", "stride", "channels", "groups", "method"),
    [
        ("cpu", 64, 32, (21, 21), 1, "matmul"),
        ("gpu", 4, 2, (21, 21), 1, "matmul"),
        ("tpu", 4, 2, (21, 21), 1, "conv"),
        ("cpu", 3, 1, (8, 8), 1, "dilated"),
        ("cpu", 3, 1, (8, 8), 8, "dilated"),
        ("cpu", 3, 1, (8, 8), 4, "matmul"),
        ("cpu", 3, 2, (8, 8), 8, "matmul"),
        ("gpu", 3, 1, (8, 8), 8, "dilated"),
        ("cpu", 9, 2, (8, 8), 1, "conv"),  # patches 25 / 4 of the output
        ("cpu", 8, 2, (8, 8), 1, "matmul"),  # exactly 4
        ("cpu", 4, 2, (512, 21), 1, "conv"),
    ],
)
def test_the_method_is_chosen_as_documented(monkeypatch, backend, kernel, stride, channels, groups, method):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = []
    for name in layers._METHODS:
        monkeypatch.setitem(layers._METHODS, name, lambda *a, name=name: chosen.append(name) or jnp.zeros((1, 2, 2, 3)))
    x, w = np.zeros((1, 5, 5, channels[0]), np.float32), np.zeros((kernel, kernel, channels[0] // groups, channels[1]))
    conv_transpose(x, w.astype(np.float32), stride, 0, feature_group_count=groups)
    assert chosen == [method]


def temporary(forward, *shapes):
    """What the result and what the gradients need beside arguments and results, in units of the result."""
    result = jax.eval_shape(forward, *shapes)
    both = [forward, lambda g, *args: jax.vjp(forward, *args)[1](g)]
    needs = [
        jax.jit(run).lower(*args).compile().memory_analysis().temp_size_in_bytes
        for run, args in zip(both, (shapes, (result, *shapes)), strict=True)
    ]
    return [need / (result.size * result.dtype.itemsize) for need in needs]


@pytest.mark.parametrize(
    ("kernel", "stride", "n", "groups", "method", "dtype"),
    [
        (64, 32, 8, 1, None, "float32"),
        (16, 8, 32, 1, None, "float32"),
        (4, 2, 128, 1, None, "float32"),
        (4, 2, 64, 1, "conv", "float32"),
        (4, 2, 64, 1, "dilated", "float32"),
        (3, 1, 64, 1, "dilated", "float32"),
        (4, 2, 64, 1, None, "bfloat16"),
        (4, 2, 64, 1, "dilated", "bfloat16"),
        (3, 1, 64, 1, "dilated", "bfloat16"),
        (9, 2, 64, 21, None, "float32"),
        (9, 2, 64, 21, "dilated", "float32"),
    ],
)
def test_memory_is_as_documented(kernel, stride, n, groups, method, dtype):
    x = jax.ShapeDtypeStruct((1, n, n, 21), dtype)
    w = jax.ShapeDtypeStruct((kernel, kernel, 21 // groups, 21), dtype)
    forward, both = temporary(
        lambda x, w: conv_transpose(x, w, stride, "SAME", feature_group_count=groups, method=method), x, w
    )
    whole = ((n + 1) / n) ** 2  # the blocks reach over the border by less than one stride
    weights = kernel**2 * w.shape[2] * 21 / (21 * (n * stride) ** 2)
    patches = whole * (-(-kernel // stride)) ** 2 / stride**2
    if method == "dilated":
        few = (0.02, 1.1) if stride == 1 else (1.02, 2.1)
        limits = few if dtype == "float32" else (4.1, 6.2)
    elif method == "conv":
        limits = (1.05 * whole, 3.5 * whole)
    else:
        wide = 2 if dtype == "bfloat16" else 1
        limits = (1.1 * wide * (whole + 2 * patches + 2 * weights), 3.1 * wide * (whole + patches + weights))
    assert forward <= limits[0]
    assert both <= limits[1]


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
def test_memory_of_the_fixed_upsampling_is_as_documented(stride, n, dtype, limits):
    shape = jax.ShapeDtypeStruct((1, n, n, 21), dtype)
    forward, both = temporary(lambda x: upsample_bilinear(x, stride), shape)
    assert forward <= 1.02 * limits[0]
    assert both <= limits[1]


def test_checkpoints_of_transposed_kernels_and_of_pytorch_move_over():
    torch = pytest.importorskip("torch")
    x = numbers(1, 3, 4, 2)
    theirs = nn.ConvTranspose(5, (4, 3), (2, 2), transpose_kernel=True)
    params = theirs.init(jax.random.key(0), x)
    kernel = params["params"]["kernel"][::-1, ::-1].swapaxes(-1, -2)
    ours = ConvTranspose(5, (4, 3), (2, 2))
    close(ours.apply({"params": params["params"] | {"kernel": kernel}}, x), theirs.apply(params, x))

    module = torch.nn.ConvTranspose2d(2, 5, 4, 2, 1)
    weight, bias = (p.detach().numpy() for p in (module.weight, module.bias))
    params = {"kernel": weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), "bias": bias}
    want = module(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    close(ConvTranspose(5, (4, 4), 2, padding=1).apply({"params": params}, x), want)


def test_the_module_s_dtypes_groups_and_axes():
    layer = ConvTranspose(6, 3, feature_group_count=2, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.ones((2, 7, 4)))
    assert y.dtype == jnp.bfloat16
    assert y.shape == (2, 7, 6)
    assert jax.tree.map(lambda p: (p.shape, str(p.dtype)), variables["params"]) == {
        "kernel": ((3, 2, 6), "float32"),
        "bias": ((6,), "float32"),
    }


def test_one_compilation_a_shape():
    traces = []

    @jax.jit
    def run(x, kernel):
        traces.append(x.shape)
        return conv_transpose(x, kernel, 2, 1), max_pool(x, 2, ceil=True), upsample_bilinear(x, 2)

    for seed in range(3):
        run(numbers(1, 3, 3, 2, seed=seed), numbers(4, 4, 2, 2))
    assert len(traces) == 1


ONE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)


def initialized(*args, **attributes):
    return ConvTranspose(*args, **attributes).init(jax.random.key(0), ONE)


def symbolic(function, shape="4, h, w, 2"):
    """`function` exported for every height and width."""
    return jax.export.export(jax.jit(function))(jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float32))


def test_a_symbolic_batch_is_exported():
    exported = symbolic(
        lambda x: (conv_transpose(x, KERNEL, 2), upsample_bilinear(x, 2), max_pool(x, 2), depth_to_space(x, (1, 2))),
        "b, 4, 4, 2",
    )
    x = numbers(3, 4, 4, 2)
    want = conv_transpose(x, KERNEL, 2), upsample_bilinear(x, 2), max_pool(x, 2), depth_to_space(x, (1, 2))
    jax.tree.map(close, tuple(exported.call(x)), want)


def test_sizes_that_numpy_has_computed_are_taken():
    two, pairs = np.array([2, 2]), np.array([[1, 0], [0, 1]])
    np.testing.assert_array_equal(
        conv_transpose(ONE, KERNEL, two, pairs, output_padding=np.array([1, 0])),
        conv_transpose(ONE, KERNEL, (2, 2), ((1, 0), (0, 1)), output_padding=(1, 0)),
    )
    np.testing.assert_array_equal(upsample_bilinear(ONE, two, padding=two), upsample_bilinear(ONE, 2, padding=(2, 2)))
    np.testing.assert_array_equal(max_pool(ONE, two, padding=pairs), max_pool(ONE, 2, padding=((1, 0), (0, 1))))
    assert conv_transpose_size(np.array([4, 5]), 3, two, pairs, 1) == (9, 11)
    assert ConvTranspose(2, np.array([3, 3]), two).init_with_output(jax.random.key(0), ONE)[0].shape == (1, 8, 8, 2)
    np.testing.assert_array_equal(depth_to_space(ONE, np.array([1, 2])), depth_to_space(ONE, (1, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_transpose(ONE[0, 0, 0], KERNEL), r"x has the shape \(2,\)"),
        (lambda: conv_transpose(ONE, KERNEL[0, 0]), r"the kernel \(2, 2\).*at least one"),
        (lambda: conv_transpose(ONE, KERNEL.astype(np.float16)), "x is float32 and the kernel float16; cast both"),
        (lambda: conv_transpose(ONE.astype(int), KERNEL.astype(int)), "cast both to one floating-point dtype"),
        (lambda: conv_transpose(ONE, KERNEL[:, :, :1]), "x has 2 channels, the kernel 1 in"),
        (lambda: conv_transpose(ONE, KERNEL[:, :, :1, :1], feature_group_count=2), "groups must divide the outputs"),
        (lambda: conv_transpose(ONE, KERNEL, feature_group_count=0), "feature_group_count 0"),
        (lambda: conv_transpose(ONE, KERNEL, bias=np.ones(3, np.float32)), r"bias has the shape \(3,\).*\(2,\)"),
        (lambda: conv_transpose(ONE[:, :0], KERNEL), r"size \(0, 4\).*at least 1"),
        (lambda: conv_transpose(ONE, KERNEL[:, :0]), r"kernel's \(3, 0\) must be numbers of at least 1"),
        (lambda: conv_transpose(ONE, KERNEL, 0), "strides is 0; the smallest value allowed is 1"),
        (lambda: conv_transpose(ONE, KERNEL, (1, 2, 3)), r"strides is \(1, 2, 3\).*2 integers"),
        (
            lambda: conv_transpose(ONE, KERNEL, 2, output_padding=2),
            r"output_padding is \(2, 2\).*smaller than the stride",
        ),
        (lambda: conv_transpose(ONE, KERNEL, 2, output_padding=-1), "output_padding is -1; the smallest value"),
        (lambda: conv_transpose(ONE, KERNEL, 2, "same"), "padding is 'same'.*'SAME', 'VALID'"),
        (lambda: conv_transpose(ONE, KERNEL, 2, ((1, 1),)), r"padding is \(\(1, 1\),\); for 2 spatial axes"),
        (lambda: conv_transpose(ONE, KERNEL, 2, ((1, 1, 1), 1)), "each an integer or a .low, high. pair"),
        (lambda: conv_transpose(ONE[0], KERNEL[0], 2, (1, 1)), r"write \(\(low, high\),\)"),
        (lambda: conv_transpose(ONE, KERNEL, 1, 3), r"the output would have the size \(0, 0\).*lower the padding"),
        (lambda: conv_transpose(ONE, KERNEL, method="fft"), "method is 'fft'.*matmul, conv, dilated"),
        (
            lambda: initialized(2, (3, 3), feature_group_count=3),
            r"\(1, 4, 4, 2\).*count 3.*groups must divide its chan",
        ),
        (lambda: initialized(2, (3, 3, 3, 3)), r"x has the shape \(1, 4, 4, 2\).*with 4 spatial axes"),
        (lambda: initialized(2, (3, 3), feature_group_count=0), "feature_group_count is 0; the smallest"),
        (lambda: initialized(0, (3, 3)), "features is 0; the smallest value allowed is 1"),
        (lambda: initialized(2, (0, 3)), r"kernel_size is \(0, 3\); the smallest value allowed is 1"),
        (lambda: initialized(2, ()), r"kernel_size is \(\); it must be an integer"),
        (
            lambda: ConvTranspose(2, (3, 3)).init(jax.random.key(0), ONE[..., :0]),
            r"\(1, 4, 4, 0\).*must divide its chan",
        ),
        (lambda: conv_transpose_size((4, 4), 3, (2, 2, 2)), r"stride is \(2, 2, 2\).*2 integers"),
        (lambda: conv_transpose_size(4, 3, 1, 3), r"size \(0,\)"),
        (lambda: conv_transpose_size(4, 3, 2, 1, 2), r"output_padding is \(2,\).*smaller than the stride"),
        (lambda: conv_transpose_padding(4, 1), r"kernel 4 with stride 1.*odd kernel.*\(1, 2\)"),
        (lambda: conv_transpose_padding((3, 4), 1), r"kernel 4 with stride 1.*odd kernel"),
        (lambda: conv_transpose_padding((3, 4), (1, 2, 3)), r"kernel is \(3, 4\).*3 integers"),
        (lambda: depth_to_space(ONE, 2), r"\(1, 4, 4, 2\); for the block \(2, 2\).*multiple of 4"),
        (lambda: inspect.unwrap(depth_to_space)(ONE, 2.0), r"block is 2.0; it must be an integer or 2 integers"),
        (lambda: depth_to_space(ONE, ()), r"block is \(\); it must be an integer"),
        (lambda: bilinear_kernel(0), "size is 0; the smallest value allowed is 1"),
        (lambda: bilinear_init(None, (3, 3, 2, 3)), r"\(3, 3, 2, 3\); bilinear_init needs.*multiple of the inputs"),
        (lambda: upsample_bilinear(ONE[0, 0], 2), r"x is float32\[4, 2\]; it must be floating point"),
        (lambda: upsample_bilinear(ONE.astype(int), 2), "must be floating point"),
        (lambda: upsample_bilinear(ONE, 2, kernel_size=0), "kernel_size is 0"),
        (lambda: upsample_bilinear(ONE, 1, padding=3), "the output would have the size"),
        (lambda: max_pool(ONE[0, 0], 2), r"x has the shape \(4, 2\)"),
        (lambda: max_pool(ONE > 0, 2), "x is bool; it must be floating point or integers.*uint8"),
        (lambda: symbolic(lambda x: conv_transpose(x, KERNEL)), "must be numbers of at least 1"),
        (lambda: symbolic(lambda x: upsample_bilinear(x, 2)), "numbers of at least 1 as height and width"),
        (lambda: symbolic(lambda x: max_pool(x, 2)), "numbers of at least 1 as height and width"),
        (lambda: symbolic(lambda x: shift_and_stitch(lambda v: v, x, 2)), "numbers of at least 1 as height and width"),
        (lambda: max_pool(ONE, 2, 2, 2), r"padding 2 with the window \(2, 2\).*smaller than the window"),
        (lambda: max_pool(ONE, 2, 2, -1), "must be at least 0"),
        (lambda: max_pool(ONE, 5), r"window \(5, 5\) is larger than the input \(4, 4\).*ceil=True"),
        (lambda: convolutionalize(np.ones((7, 2)), 2), r"\(7, 2\); for the window \(2, 2\).*multiple of 4"),
        (lambda: convolutionalize(np.ones((8, 2)), 2, "cwh"), "order is 'cwh'.*'hwc'.*'chw'"),
        (lambda: shift_and_stitch(lambda v: v, ONE[0, 0], 2), r"x has the shape \(4, 2\)"),
        (lambda: shift_and_stitch(lambda v: v, ONE, 2), r"gives \(4, 4\) cells.*give the net's total stride"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------------------- size arithmetic


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
)
@settings(deadline=None, derandomize=True, database=None)
def test_the_size_is_the_article_s_formula_and_the_layer_s(n, kernel, stride, padding):
    want = tuple((a - 1) * s - 2 * p + k for a, k, s, p in zip(n, kernel, stride, padding, strict=True))
    if min(want) < 1:
        with pytest.raises(ValueError, match="at least 1"):
            conv_transpose_size(n, kernel, stride, padding)
        return
    assert conv_transpose_size(n, kernel, stride, padding) == want
    assert conv_transpose_size(n[0], kernel[0], stride[0], ((padding[0], padding[0]),)) == (want[0],)
    extra = stride[0] - 1
    assert conv_transpose_size(n[0], kernel[0], stride[0], padding[0], extra) == want[0] + extra
    with pytest.raises(ValueError, match="smaller than the stride"):
        conv_transpose_size(n[0], kernel[0], stride[0], padding[0], stride[0])
    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((*n, 1), (*kernel, 1, 1)))
    assert jax.eval_shape(lambda x, w: conv_transpose(x, w, stride, padding), x, w).shape[:-1] == want


def test_the_inverse_gives_exactly_the_multiple():
    for kernel, stride, n in itertools.product(range(1, 10), range(1, 10), (1, 5)):
        if stride == 1 and kernel % 2 == 0:
            continue
        padding, output_padding = conv_transpose_padding(kernel, stride)
        assert output_padding in (0, 1)
        assert conv_transpose_size(n, kernel, stride, padding, output_padding) == stride * n
        paddings = conv_transpose_padding((kernel, 4), (stride, 2))
        assert conv_transpose_size((n, 3), (kernel, 4), (stride, 2), *paddings) == (stride * n, 6)
    assert conv_transpose_padding((4,), 2) == ((1,), (0,))
    assert conv_transpose_padding(3, (1, 2)) == ((1, 1), (0, 1))
    assert conv_transpose_size(5, 4, 3, "SAME") == 15
    assert conv_transpose_size(5, 2, 3, "VALID") == 15


def test_depth_to_space_puts_every_channel_in_its_place():
    x = numbers(2, 2, 3, 12)
    y = np.asarray(depth_to_space(x, (2, 3)))
    assert y.shape == (2, 4, 9, 2)
    for b, i, j, c in np.ndindex(*y.shape):
        assert y[b, i, j, c] == x[b, i // 2, j // 3, (i % 2 * 3 + j % 3) * 2 + c]
    np.testing.assert_array_equal(depth_to_space(x[0, 0], (4,))[:, 0], x[0, 0].reshape(3, 4, 3)[:, :, 0].ravel())


# ----------------------------------------------------------------------------------------- bilinear upsampling


@pytest.mark.parametrize("size", range(1, 10))
def test_the_filter_is_the_reference_s(size):
    kernel = bilinear_kernel(size)
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, reference_filter(size).astype(np.float32))
    rectangular = bilinear_kernel((size, 4))
    rows, columns = (np.sqrt(np.diag(reference_filter(side))) for side in (size, 4))  # an outer product of tents
    np.testing.assert_allclose(rectangular, np.outer(rows, columns), rtol=1e-6)


@pytest.mark.parametrize("stride", [9, 16])
def test_large_strides_are_the_transposed_convolution_and_so_is_their_gradient(stride):
    """Above stride 8 the CPU has another form, that of FCN-16s and FCN-32s."""
    x = jnp.asarray(numbers(2, 3, 4, 2), jnp.float32)
    size = 2 * stride - stride % 2
    kernel = np.zeros((size, size, 2, 2), np.float32)
    kernel[:, :, [0, 1], [0, 1]] = reference_filter(size)[..., None]
    pad = ((size - stride) // 2,) * 2
    want, back = jax.vjp(lambda x: conv_transpose(x, jnp.asarray(kernel), stride, (pad, pad), method="dilated"), x)
    got, our_back = jax.vjp(lambda x: upsample_bilinear(x, stride), x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    g = jnp.asarray(numbers(*want.shape, seed=1), jnp.float32)
    np.testing.assert_allclose(our_back(g)[0], back(g)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 32])
def test_sizes_2s_and_2s_minus_1_keep_a_constant_and_size_s_does_not(stride):
    """Partition of unity: at every phase of the stride the taps of one axis add up to one."""
    for size in (2 * stride, 2 * stride - 1):
        taps = np.zeros(2 * stride)
        taps[:size] = np.sqrt(np.diag(bilinear_kernel(size)))
        np.testing.assert_allclose(taps.reshape(2, stride).sum(0), 1.0, rtol=1e-6)
    taps = np.sqrt(np.diag(bilinear_kernel(stride)))  # one tap a phase
    assert np.ptp(taps) > 0.1 or taps.max() <= 0.5


@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (4, 5, 1, 3), (3, 3, 2, 4), (5, 2, 2), (3, 3, 1, 1)])
def test_the_initializer_gives_every_channel_to_itself(shape):
    kernel = np.asarray(bilinear_init(jax.random.key(0), shape, jnp.float32))
    *size, ins, outs = shape
    for i, o in np.ndindex(ins, outs):
        tent = bilinear_kernel(tuple(size)) if len(size) == 2 else bilinear_kernel((size[0], 1))[:, 0]
        np.testing.assert_array_equal(kernel[..., i, o], tent if i == o % ins else np.zeros(size))
    assert bilinear_init(None, shape, jnp.bfloat16).dtype == jnp.bfloat16


@st.composite
def upsampled(draw):
    kernel, strides = (draw(st.tuples(st.integers(1, top), st.integers(1, top))) for top in (9, 5))
    padding = draw(
        st.one_of(st.none(), st.just("VALID"), st.tuples(*[st.tuples(st.integers(-3, 1), st.integers(-3, 1))] * 2))
    )
    return draw(st.one_of(st.none(), st.just(kernel))), strides, padding


@settings(max_examples=18, deadline=None, derandomize=True, database=None)
@given(upsampled(), st.sampled_from(["float32", "bfloat16", "float64"]), st.booleans())
def test_upsample_bilinear_is_the_transposed_convolution(case, dtype, on_cpu):
    """The result and the gradient, in the form of the CPU and in that of the other backends."""
    kernel, strides, padding = case
    size = kernel or tuple(2 * s - s % 2 for s in strides)
    try:
        conv_transpose_size((4, 3), size, strides, padding or "SAME")
    except ValueError:
        padding = "VALID"
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(dtype == "float64"):
        patch.setattr(jax, "default_backend", lambda: "cpu" if on_cpu else "gpu")
        x = jnp.asarray(numbers(2, 4, 3, 2), dtype)
        crops = layers._crops(padding or "SAME", size, strides)
        weights = np.multiply.outer(np.outer(layers._tent(size[0]), layers._tent(size[1])), np.eye(2))
        want = scatter(x, weights, strides, crops, (0, 0))
        g = jnp.asarray(numbers(*want.shape, seed=2), dtype)
        y, dx = with_gradients(lambda x: upsample_bilinear(x, strides, kernel_size=kernel, padding=padding), g, x)
        close(y, want, dtype, scale=2)  # bfloat16: rounded after each axis
        close(dx, gradients(x, weights, strides, crops, (0, 0), 1, g)[0], dtype, scale=4)


@pytest.mark.parametrize("stride", [3, 4])
def test_upsample_bilinear_is_jax_image_resize_in_the_interior(stride):
    x = jnp.asarray(numbers(1, 5, 6, 2))
    border = stride // 2
    want = quick(lambda x: jax.image.resize(x, (1, 5 * stride, 6 * stride, 2), "bilinear"))(x)
    got = quick(lambda x: upsample_bilinear(x, stride))(x)
    inside = (slice(None), slice(border, -border), slice(border, -border))
    close(got[inside], want[inside])
    assert np.abs(got - want)[:, 0].max() > 0.1  # at the border resize repeats the last value, this fades


@pytest.mark.parametrize("stride", [2, 5])
def test_the_odd_kernel_aligns_the_corners(stride):
    x = jnp.asarray(numbers(1, 5, 6, 2))
    shape = (1, 4 * stride + 1, 5 * stride + 1, 2)
    shift = jnp.full(2, (1 - stride) / 2, jnp.float32)
    scale = jnp.full(2, float(stride))
    want, got = quick(
        lambda x: (
            jax.image.scale_and_translate(x, shape, (1, 2), scale, shift, "linear", antialias=False),
            upsample_bilinear(x, stride, kernel_size=2 * stride - 1, padding=stride - 1),
        )
    )(x)
    close(got, want, scale=4)
    np.testing.assert_array_equal(got[:, ::stride, ::stride], x)


def test_the_module_with_bilinear_init_is_upsample_bilinear():
    x = numbers(1, 3, 4, 3)
    for groups in (1, 3):
        layer = ConvTranspose(3, (4, 4), 2, 1, use_bias=False, kernel_init=bilinear_init, feature_group_count=groups)
        close(quick(layer.init_with_output)(jax.random.key(0), x)[0], quick(lambda x: upsample_bilinear(x, 2))(x))


@pytest.mark.parametrize(("stride", "on_cpu", "nan"), [(3, True, 0), (8, True, 0), (9, True, 440), (2, False, 20)])
def test_what_an_inf_becomes_is_as_documented(monkeypatch, stride, on_cpu, nan):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu" if on_cpu else "gpu")
    x = np.ones((1, 5, 5, 1), np.float32)
    reached = np.zeros((1, 5 * stride, 5 * stride, 1), bool)
    blocks = np.zeros_like(reached)
    x[:, 2, 2] = np.inf
    size = 2 * stride - stride % 2
    low = 2 * stride - (size - stride) // 2
    reached[:, low : low + size, low : low + size] = True
    blocks[:, stride : 4 * stride, stride : 4 * stride] = True
    y = np.asarray(quick(lambda x: upsample_bilinear(x, stride))(x))
    assert np.isposinf(y[reached]).all()
    assert np.isnan(y[blocks & ~reached]).sum() == nan == np.isnan(y).sum()
    assert np.isfinite(y[~blocks]).all()


# ----------------------------------------------------------------------------------------------------- pooling


@st.composite
def pools(draw):
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    return {
        "spatial": draw(st.tuples(st.integers(1, 6), st.integers(1, 6))),
        "window": window,
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "pads": tuple(draw(st.tuples(*[st.integers(0, k - 1)] * 2)) for k in window),
        "ceil": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float32", "bfloat16"])),
    }


def windows_of(n, window, stride, low, high, ceil):
    """How many windows: counted one by one."""
    count, start = 0, -low
    while start < n and (start + window <= n + high or (ceil and (count == 0 or start - stride + window < n + high))):
        count, start = count + 1, start + stride
    return count


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(pools())
def test_max_pool_and_its_gradient_are_the_loop(case):
    axes = list(zip(case["spatial"], case["window"], case["strides"], *zip(*case["pads"], strict=True), strict=True))
    counts = [windows_of(*axis, case["ceil"]) for axis in axes]
    x = np.round(numbers(2, *case["spatial"], 2) * 2)  # few values, so that windows have ties

    def forward(x):
        return max_pool(x, case["window"], case["strides"], case["pads"], ceil=case["ceil"])

    if min(counts) < 1:
        with pytest.raises(ValueError, match="larger than the input"):
            forward(x)
        return
    y, place = pooled(x, case["window"], case["strides"], [low for low, _ in case["pads"]], counts)
    g = np.round(numbers(*y.shape, seed=1) * 4)  # whole numbers add up exactly in every dtype
    got, dx = with_gradients(forward, jnp.asarray(g), jnp.asarray(x, case["dtype"]))
    np.testing.assert_array_equal(np.asarray(got, np.float64), y)
    want = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*y.shape):
        want[b, place[b, i, j, c, 0], place[b, i, j, c, 1], c] += g[b, i, j, c]
    np.testing.assert_array_equal(np.asarray(dx, np.float64), want)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "ceil"),
    [(8, 2, 2, 0, True), (7, 2, 2, 0, True), (7, 3, 2, 1, False), (8, 3, 2, 0, True), (1, 2, 2, 0, True)],
)
def test_max_pool_is_pytorch_s_with_its_ties(size, window, stride, padding, ceil):
    torch = pytest.importorskip("torch")
    x = np.round(numbers(2, size, size, 3))
    if size == 1:  # PyTorch refuses a window larger than the input
        np.testing.assert_array_equal(max_pool(x, window, stride, padding, ceil=ceil), x)
        return
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    want = torch.nn.functional.max_pool2d(tx, window, stride, padding, ceil_mode=ceil)
    g = numbers(*want.shape, seed=1)
    want.backward(torch.tensor(g))
    y, dx = with_gradients(lambda x: max_pool(x, window, stride, padding, ceil=ceil), g.transpose(0, 2, 3, 1), x)
    np.testing.assert_array_equal(y, want.detach().numpy().transpose(0, 2, 3, 1))
    close(dx, tx.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_max_pool_is_flax_s(padding):
    x = jnp.asarray(numbers(2, 3, 7, 6, 2))
    for window, strides in [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 3))]:
        np.testing.assert_array_equal(max_pool(x, window, strides, padding), nn.max_pool(x, window, strides, padding))


@pytest.mark.parametrize(
    "window", [(15, 17), (16, 16), *(pytest.param(w, marks=pytest.mark.slow) for w in [(2, 127), (20, 20)])]
)
def test_windows_of_as_many_places_as_a_byte_has_values(window):
    """Places by turns the largest. A byte numbers 254 of them beside its two codes for none: 255 need more."""
    rows, columns = window
    x = np.zeros((rows * columns, rows + 1, columns + 1, 1), np.float32)
    at = np.arange(rows * columns)
    x[at, at // columns, at % columns] = 1
    # No divisors where the window is long, so that there are phases beyond it; and one window in all.
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
        ([-np.inf] * 4, ((1, 0), (0, 0)), None),  # lost in the padding above
        ([np.nan, 2.0, 5.0, 3.0], ((1, 0), (0, 0)), None),
        ([-5.0, -7.0, 5.0, 3.0], ((1, 0), (0, 0)), 0),
    ],
)
def test_the_gradients_of_nan_and_of_minus_infinity_go_where_the_docstring_says(values, padding, place):
    x = np.array(values, np.float32).reshape(1, 2, 2, 1)
    want = np.zeros(4)
    if place is not None:
        want[place] = 1
    first = with_gradients(lambda x: max_pool(x, 2, 2, padding, ceil=True)[:, :1], np.ones((1, 1, 1, 1), np.float32), x)
    np.testing.assert_array_equal(first[1].ravel(), want)
    seen = x if padding == 0 else x[:, :1]
    np.testing.assert_array_equal(first[0].ravel(), [seen.max()])  # NaN where there is one


def test_max_pool_of_integers_and_of_nan():
    x = np.arange(16).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(quick(lambda x: max_pool(x, 2, padding=1))(-x)[0, :2, 0, 0], [0, -4])
    assert np.isnan(max_pool(jnp.array([1.0, np.nan, 2.0, 3.0]).reshape(2, 2, 1), 2)).all()


# ----------------------------------------------------------------------------------- from classifier to map


@pytest.mark.parametrize("order", ["hwc", "chw"])
def test_a_convolutionalized_classifier_says_everywhere_what_it_says_once(order):
    image, dense = numbers(5, 6, 4), numbers(3 * 2 * 4, 7, seed=1)
    kernel = convolutionalize(dense, (3, 2), order)
    heat = jax.lax.conv_general_dilated(
        image[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for i, j in np.ndindex(3, 5):
        seen = image[i : i + 3, j : j + 2]
        close(heat[0, i, j], (seen if order == "hwc" else seen.transpose(2, 0, 1)).ravel() @ dense)


@pytest.mark.parametrize("size", [(14, 16), (15, 19)])
def test_shift_and_stitch_is_the_net_a_trous(size):
    """A net of stride 2 x 3: convolution, strided convolution, convolution; à trous without stride, then dilated."""
    first, second, third = numbers(2, 3, 2, 3), numbers(3, 2, 3, 3, seed=1), numbers(2, 2, 3, 2, seed=2)

    def convolve(x, kernel, strides=(1, 1), dilation=(1, 1)):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", rhs_dilation=dilation, dimension_numbers=names)

    def coarse(x):
        return convolve(jnp.tanh(convolve(jnp.tanh(convolve(x, first)), second, (2, 3))), third)

    def dense(x):
        return convolve(jnp.tanh(convolve(jnp.tanh(convolve(x, first)), second)), third, dilation=(2, 3))

    x = jnp.asarray(numbers(2, *size, 2))
    want = dense(x)
    got = jax.jit(lambda x: shift_and_stitch(coarse, x, (2, 3)))(x)
    cells = coarse(x).shape[1:3]
    assert got.shape == (2, cells[0] * 2, cells[1] * 3, 2)
    same = tuple(slice(0, min(a, b)) for a, b in zip(got.shape[1:3], want.shape[1:3], strict=True))
    close(got[:, *same], want[:, *same])
    np.testing.assert_allclose(got[:, ::2, ::3], coarse(x), atol=1e-5)
    assert min(s.stop - (c - 1) * t for s, c, t in zip(same, cells, (2, 3), strict=True)) >= 1  # up to the last cell
