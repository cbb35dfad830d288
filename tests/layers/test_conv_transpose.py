"""Transposed convolution against a loop in float64, PyTorch and Flax."""

import functools
import inspect

import flax.linen as nn
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
    export_for_every_size,
    measure_memory,
    quick_jit,
    with_gradients,
)

from fcn_jax.layers import ConvTranspose, conv_transpose, conv_transpose_size
from fcn_jax.layers.conv_transpose_methods import METHODS

ONE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)


def initialized(*args, **attributes):
    return ConvTranspose(*args, **attributes).init(jax.random.key(0), ONE)


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
        "method": take(st.sampled_from([None, "matmul", "conv", "plain"])),
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
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_values_and_gradients_are_the_loop(case):
    check_transposed(case)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(transposed())
def test_values_and_gradients_are_the_loop_at_length(case):
    check_transposed(case)


@st.composite
def pytorch_cases(take):
    """Draw one or two axes, every kernel and stride, any groups, and a padding that leaves some of the output."""
    axes = take(st.sampled_from([1, 2, 2]))
    kernel, strides, spatial = (tuple(take(st.tuples(*[st.integers(1, top)] * axes))) for top in (9, 5, 4))
    extra = tuple(take(st.integers(0, s - 1)) for s in strides)
    sizes = [(n - 1) * s + k + e for n, s, k, e in zip(spatial, strides, kernel, extra, strict=True)]
    padding = tuple(take(st.integers(0, min(8, (size - 1) // 2))) for size in sizes)
    # Groups, inputs and outputs of a group: dense, grouped, depthwise with one and with several outputs.
    channels = take(st.sampled_from([(1, 2, 3), (1, 3, 1), (2, 2, 3), (2, 3, 1), (4, 1, 1), (3, 1, 2)]))
    return kernel, strides, spatial, padding, extra, channels, take(st.integers(0, 1000))


def check_against_pytorch(case):
    """Compare the result and the gradients of input, kernel and bias, in float64."""
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
    assert_close(y, want.detach(), "float64", scale=2)
    for got, leaf in zip(grads, leaves, strict=True):
        assert_close(got, leaf.grad, "float64", scale=8)


@pytest.mark.peers
@example(((4, 4), (2, 2), (5, 3), (1, 1), (0, 0), (4, 1, 1), 0))
@example(((2, 1), (3, 5), (4, 3), (0, 2), (2, 0), (1, 2, 3), 0))
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(pytorch_cases())
def test_values_and_gradients_are_those_of_pytorch(case):
    check_against_pytorch(case)


@pytest.mark.peers
@pytest.mark.slow
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(pytorch_cases())
def test_values_and_gradients_are_those_of_pytorch_at_length(case):
    check_against_pytorch(case)


def check_against_flax(kernel, strides, padding, seed):
    """Compare the result and the gradients of input, kernel and bias, with the same parameters."""
    ours, flax = (layer(3, kernel, strides, padding) for layer in (ConvTranspose, nn.ConvTranspose))
    x = draw(2, *(4, 3)[: len(kernel)], 2, seed=seed)
    params = {"params": {"kernel": draw(*kernel, 2, 3, seed=seed + 1), "bias": draw(3, seed=seed + 2)}}
    g = draw(*jax.eval_shape(flax.apply, params, x).shape, seed=seed + 3)
    results = (with_gradients(layer.apply, g, params, x) for layer in (ours, flax))
    jax.tree.map(functools.partial(assert_close, scale=4), *results)


axes = st.tuples(st.integers(1, 9), st.integers(1, 5))  # kernel and stride of an axis


@example([(2, 3), (9, 1)], "VALID", 0)
@example([(1, 5), (4, 2)], "SAME", 0)
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(st.lists(axes, min_size=1, max_size=2), st.sampled_from(["SAME", "VALID"]), st.integers(0, 1000))
def test_same_and_valid_are_those_of_flax(kernels_and_strides, padding, seed):
    check_against_flax(*zip(*kernels_and_strides, strict=True), padding, seed)


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", range(1, 6))
def test_same_and_valid_are_those_of_flax_for_every_kernel(stride, padding):
    for kernel in range(1, 10):
        check_against_flax((kernel,), (stride,), padding, kernel)
        check_against_flax((kernel, 10 - kernel), (stride, 6 - stride), padding, kernel)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(64, 32, (16, 16)), (5, 2, (1, 3)), (3, 1, (0, 1)), (2, 5, (-2, 0))]
)
def test_explicit_padding_of_flax_is_kernel_minus_1_minus_ours(kernel, stride, padding):
    theirs = tuple(kernel - 1 - p for p in padding)
    ours, flax = (
        layer(2, (kernel, kernel), (stride, stride), padding=(pair, pair))
        for layer, pair in ((ConvTranspose, padding), (nn.ConvTranspose, theirs))
    )
    x = draw(1, 3, 4, 2)
    params = {"params": {"kernel": draw(kernel, kernel, 2, 2, seed=1), "bias": draw(2, seed=2)}}
    assert_close(quick_jit(ours.apply)(params, x), quick_jit(flax.apply)(params, x))


def test_parameters_start_as_in_flax():
    for bias in (True, False):
        ours, flax = (
            quick_jit(layer(3, (4, 3), (2, 2), use_bias=bias).init)(jax.random.key(0), jnp.ones((1, 3, 4, 2)))
            for layer in (ConvTranspose, nn.ConvTranspose)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, flax)


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
    for method in ("matmul", "conv", "plain"):
        y = conv_transpose(jnp.ones((1, 2, 1)), jnp.ones((3, 1, 1)), 2, ((7, -9),), method=method)
        np.testing.assert_array_equal(y, np.zeros((1, 7, 1)))


@pytest.mark.parametrize("method", [None, "matmul", "conv", "plain"])
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
        ("tpu", 4, 2, (21, 21), 1, "conv"),
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
    elif method == "conv":
        limits = (1.05 * whole, 3.5 * whole)
    else:
        wide = 2 if dtype == "bfloat16" else 1
        limits = (1.1 * wide * (whole + 2 * patches + 2 * weights), 3.1 * wide * (whole + patches + weights))
    assert forward <= limits[0]
    assert both <= limits[1]


def test_checkpoints_with_transposed_kernels_can_be_converted():
    x = draw(1, 3, 4, 2)
    theirs = nn.ConvTranspose(5, (4, 3), (2, 2), transpose_kernel=True)
    params = theirs.init(jax.random.key(0), x)
    kernel = params["params"]["kernel"][::-1, ::-1].swapaxes(-1, -2)
    ours = ConvTranspose(5, (4, 3), (2, 2))
    assert_close(ours.apply({"params": params["params"] | {"kernel": kernel}}, x), theirs.apply(params, x))


@pytest.mark.peers
def test_weights_of_pytorch_can_be_converted():
    torch = pytest.importorskip("torch")
    x = draw(1, 3, 4, 2)
    module = torch.nn.ConvTranspose2d(2, 5, 4, 2, 1)
    weight, bias = (p.detach().numpy() for p in (module.weight, module.bias))
    params = {"kernel": weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1), "bias": bias}
    want = module(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    assert_close(ConvTranspose(5, (4, 4), 2, padding=1).apply({"params": params}, x), want)


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
@pytest.mark.parametrize("method", ["matmul", "conv", "dilated", None])
def test_every_method_has_the_values_and_gradients_of_the_plain_one(method, groups):
    x, kernel = draw(2, 5, 4, 4), draw(4, 3, 4 // groups, 6, seed=1)
    g = draw(2, *conv_transpose_size((5, 4), (4, 3), (2, 3), "SAME"), 6, seed=2)

    def run(method):
        def forward(x, kernel):
            return conv_transpose(x, kernel, (2, 3), feature_group_count=groups, method=method)

        return with_gradients(forward, g, x, kernel)

    for got, want in zip(run(method), run("plain"), strict=True):
        assert_close(got, want, scale=4)


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
        (lambda: conv_transpose(ONE[..., :0], KERNEL[:, :, :0]), "x has 0 channels.*each must be at least 1"),
        (lambda: conv_transpose(ONE, KERNEL[..., :0]), "2 in and 0 out.*each must be at least 1"),
        (
            lambda: inspect.unwrap(conv_transpose)("ab", KERNEL),
            r"x is of type str; it must be one array, \[\*batch, \*spatial, in\]",
        ),
        (
            lambda: inspect.unwrap(conv_transpose)(ONE, None),
            r"kernel is of type NoneType; it must be one array, \[\*spatial",
        ),
        (lambda: conv_transpose(ONE, KERNEL, bias=np.ones(3, np.float32)), r"bias has the shape \(3,\).*\(2,\)"),
        (lambda: conv_transpose(ONE[:, :0], KERNEL), r"size \(0, 4\).*at least 1"),
        (lambda: conv_transpose(ONE, KERNEL[:, :0]), r"kernel's \(3, 0\) must be at least 1"),
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
        (lambda: conv_transpose(ONE, KERNEL, method="fft"), r"method is 'fft'.*matmul, conv, plain, dilated"),
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
        (
            lambda: export_for_every_size(lambda x: conv_transpose(x, KERNEL, padding=2)),
            r"the output would have the size \(h - 2, w - 2\).*lower the padding",
        ),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
