"""The convolution against loops in float64, `lax.conv_general_dilated` and Flax's module."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from layer_loops import conv_loop, conv_loop_gradients

from fcn_jax.layers import Conv, compiler_options, conv
from fcn_jax.layers.winograd import choose_tile

# batch, height, width, in, out, kernel, stride, padding, dilation: large and small maps, maps smaller than the kernel
# or just as large, odd sides, and maps for which Winograd's algorithm is chosen.
CASES = {
    "large": (2, 13, 11, 3, 4, 3, 1, 1, 1),
    "strided": (2, 12, 9, 3, 4, 7, 2, 3, 1),
    "even kernel": (2, 9, 10, 3, 4, 2, 2, 1, 1),
    "1x1": (2, 8, 7, 3, 4, 1, 2, 0, 1),
    "dilated": (2, 9, 8, 3, 4, 3, 1, 2, 2),
    "dilated and strided": (2, 11, 12, 3, 4, 3, 2, 2, 2),
    "small": (2, 5, 6, 3, 4, 3, 2, 1, 1),
    "wide border": (2, 5, 6, 3, 4, 3, 1, 9, 1),
    "smaller than the kernel": (2, 2, 40, 3, 4, 5, 1, 2, 1),
    "dilated beyond the map": (2, 4, 4, 3, 4, 3, 1, 4, 4),
    "one pixel": (2, 1, 1, 3, 4, 3, 2, 1, 1),
    "unpadded": (2, 7, 7, 3, 4, 7, 1, 0, 1),
    "gradient smaller than the kernel": (2, 8, 9, 3, 4, 7, 1, 0, 1),
    "winograd": (2, 18, 16, 64, 72, 3, 1, 1, 1),
    "winograd, odd": (1, 25, 23, 72, 64, 3, 1, 1, 1),
    "winograd, unpadded": (1, 24, 23, 64, 64, 3, 1, 0, 1),
    "winograd, wide border": (1, 24, 23, 64, 64, 3, 1, 2, 1),
    "winograd, dilated": (2, 25, 26, 64, 72, 3, 1, 2, 2),
    "winograd, dilated by three, unpadded": (1, 31, 29, 64, 64, 3, 1, 0, 3),
    "winograd by fours": (8, 20, 18, 64, 72, 3, 1, 1, 1),
    "winograd by fours, odd, unpadded": (1, 53, 52, 72, 64, 3, 1, 0, 1),
}


METHODS = ["plain", "barriers", "winograd", "patches"]


def arrays(batch, height, width, ins, outs, window):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, ins))
    kernel = rng.normal(size=(window, window, ins, outs)) / (window * ins**0.5)
    return jnp.asarray(x, np.float32), jnp.asarray(kernel, np.float32)


def lax_conv(x, kernel, stride=1, padding=0, dilation=1, groups=1):
    sides = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        sides,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """As without virtual devices; test_scaling.py has what several devices exchange."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def value_and_gradients(function, x, kernel, gradient):
    value, back = jax.vjp(function, x, kernel)
    return value, *back(gradient)


def assert_all_close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_plain_values_and_gradients_are_the_loop(case):
    *shape, stride, padding, dilation = case
    x, kernel = arrays(*shape)
    want = conv_loop(x, kernel, stride, padding, dilation)
    gradient = np.random.default_rng(1).normal(size=want.shape).astype(np.float32)
    function = functools.partial(conv, stride=stride, padding=padding, dilation=dilation, method="plain")
    got = jax.jit(functools.partial(value_and_gradients, function))(x, kernel, gradient)
    assert_all_close(got, (want, *conv_loop_gradients(x, kernel, stride, padding, dilation, gradient)))


def can_compute(method, case):
    _, _, _, _, _, window, stride, padding, dilation = case
    return method != "winograd" or (window == 3 and stride == 1 and (padding <= 2 or dilation > 1))


@pytest.mark.parametrize(
    ("name", "method"), [(name, m) for name, case in CASES.items() for m in METHODS[1:] if can_compute(m, case)]
)
def test_every_method_has_the_values_and_gradients_of_the_plain_one(name, method):
    assert_all_close(compute(name, method), compute(name, "plain"))


@functools.cache
def compute(name, method):
    """Compute the value and the gradients of a case."""
    *shape, stride, padding, dilation = CASES[name]
    x, kernel = arrays(*shape)
    function = functools.partial(conv, stride=stride, padding=padding, dilation=dilation, method=method)
    shape = jax.eval_shape(function, x, kernel).shape
    gradient = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return jax.jit(functools.partial(value_and_gradients, function))(x, kernel, gradient)


OPTIONS = {
    "no options": None,
    "of steps": compiler_options(),
    "of forward passes": compiler_options(training=False),
}


QUICK = ("large", "small", "1x1", "dilated", "winograd")  # without the options of steps


def list_chosen():
    for name in CASES:
        for options in OPTIONS:
            slow = [] if options == "of steps" or name in QUICK else [pytest.mark.slow]
            yield pytest.param(name, options, id=f"{name}-{options}", marks=slow)


@pytest.mark.parametrize(("name", "options"), list(list_chosen()))
def test_chosen_method_has_the_values_and_gradients_of_lax(name, options):
    *shape, stride, padding, dilation = CASES[name]
    x, kernel = arrays(*shape)
    ours, peers = (functools.partial(f, stride=stride, padding=padding, dilation=dilation) for f in (conv, lax_conv))
    gradient = np.random.default_rng(1).normal(size=jax.eval_shape(peers, x, kernel).shape).astype(np.float32)
    got = jax.jit(functools.partial(value_and_gradients, ours), compiler_options=OPTIONS[options])(x, kernel, gradient)
    assert_all_close(got, value_and_gradients(peers, x, kernel, gradient))
    # Forward mode, in one argument and in both.
    two = peers(x, kernel)
    for argument, tangent, times in ((ours, (x, kernel), 2), (functools.partial(ours, x), (kernel,), 1)):
        _, pushed = jax.jvp(argument, tangent, tangent)
        np.testing.assert_allclose(pushed, times * two, atol=1e-5 * np.abs(two).max())


@pytest.mark.parametrize("case", ["large", "winograd", "winograd by fours"])
def test_second_derivatives(case):
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)

    def loss(function, kernel):
        return jnp.mean(function(x, kernel, stride, padding, dilation) ** 3)

    def curvature(function):
        return jax.grad(lambda k: jnp.sum(jax.grad(functools.partial(loss, function))(k) ** 2))(kernel)

    ours, peers = curvature(conv), curvature(lax_conv)
    np.testing.assert_allclose(ours, peers, atol=1e-4 * np.abs(peers).max())


@pytest.mark.parametrize("case", ["large", "small", "winograd, odd"])
def test_vmap_over_kernels_is_the_loop(case):
    """With the gradient, as in an ensemble."""
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)
    kernels = jnp.stack([kernel, -2 * kernel, kernel[::-1]])
    gradient = jax.grad(lambda k: jnp.sum(conv(x, k, stride, padding, dilation) ** 2))
    at_once = jax.vmap(gradient)(kernels)
    for got, one in zip(at_once, kernels, strict=True):
        want = gradient(one)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("case", ["large", "winograd by fours"])
def test_vmap_over_batches_is_the_loop(case):
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)
    batches = jnp.stack([x, -2 * x])
    gradient = jax.grad(lambda x: jnp.sum(conv(x, kernel, stride, padding, dilation) ** 2))
    for got, one in zip(jax.vmap(gradient)(batches), batches, strict=True):
        want = gradient(one)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("case", [case for case in CASES if "fours" in case])
def test_cases_by_fours_choose_tiles_of_four(case):
    batch, height, width, _, _, _, _, padding, _ = CASES[case]
    assert choose_tile(batch, height + 2 * padding - 2, width + 2 * padding - 2) == 4


def test_groups_and_half_precision():
    x, kernel = arrays(2, 9, 8, 6, 4, 3)
    np.testing.assert_array_equal(conv(x, kernel[:, :, :3], 1, 1, 1, 2), lax_conv(x, kernel[:, :, :3], 1, 1, 1, 2))
    x, kernel = (jnp.asarray(array, jnp.bfloat16) for array in arrays(1, 24, 24, 64, 64, 3))
    got = conv(x, kernel, 1, 1)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), lax_conv(x, kernel, 1, 1).astype(np.float32), atol=0.05)


@pytest.mark.parametrize("dilation", [1, 4])
def test_winograd_is_chosen_for_many_channels(dilation):
    """XLA counts the operations: 16 products per channel in place of 36, for the gradients too."""

    def operations(channels):
        x = jax.ShapeDtypeStruct((1, 40, 40, channels), np.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), np.float32)
        step = jax.jit(lambda x, kernel: value_and_gradients(function, x, kernel, x))
        return step.lower(x, kernel).compile().cost_analysis()["flops"] / (3 * 2 * 40 * 40 * 9 * channels**2)

    function = functools.partial(conv, padding=dilation, dilation=dilation)
    assert 0.85 < operations(32) < 1.1  # a padding of zeros is not counted
    assert 0.4 < operations(256) < 0.6


def test_the_gradient_of_a_1x1_kernel_does_not_compute_its_map_again():
    """XLA would transpose what comes before, such as a batch norm and a ReLU, in an order that jumps through memory."""
    x = jax.ShapeDtypeStruct((1, 16, 16, 32), np.float32)
    kernel = jax.ShapeDtypeStruct((1, 1, 32, 8), np.float32)
    text = str(jax.make_jaxpr(jax.grad(lambda x, k: conv(jax.nn.relu(x), k).sum(), 1))(x, kernel))
    assert "optimization_barrier" in text


@pytest.mark.parametrize("use_bias", [False, True])
def test_module_has_the_parameters_and_results_of_flax(use_bias):
    x, _ = arrays(2, 6, 7, 3, 4, 3)
    ours = Conv(4, (3, 3), strides=2, padding=1, use_bias=use_bias, bias_init=nn.initializers.normal())
    peers = nn.Conv(4, (3, 3), strides=2, padding=1, use_bias=use_bias, bias_init=nn.initializers.normal())
    variables, expected = (layer.init(jax.random.key(0), x) for layer in (ours, peers))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    np.testing.assert_allclose(ours.apply(variables, x), peers.apply(variables, x), atol=1e-5)

    def gradient(layer):
        return jax.grad(lambda v: (layer.apply(v, x) ** 2).sum())(variables)

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), gradient(ours), gradient(peers))


def test_accelerators_run_the_plain_convolution(monkeypatch):
    x, kernel = arrays(*CASES["winograd"][:6])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    operations = str(jax.make_jaxpr(functools.partial(conv, padding=1))(x, kernel))
    assert operations.count("conv_general_dilated") == 1
    assert "barrier" not in operations


def test_module_passes_its_method_on():
    x, _ = arrays(1, 6, 7, 3, 4, 3)
    layer = Conv(4, (3, 3), padding=1, method="winograd")
    variables = layer.init(jax.random.key(0), x)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(layer.apply)(variables, x))
    want = conv_loop(x, variables["params"]["kernel"], 1, 1)
    np.testing.assert_allclose(layer.apply(variables, x), want, atol=1e-5)


def test_a_plain_module_is_xla_s_own_operations_bias_included():
    x, _ = arrays(1, 6, 7, 3, 4, 3)
    layer = Conv(4, (3, 3), padding=1, method="plain")
    variables = layer.init(jax.random.key(0), x)
    operations = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert operations.count("conv_general_dilated") == 1
    assert "dot_general" not in operations


ONE, KERNEL = np.ones((1, 4, 5, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)
untyped = inspect.unwrap(conv)  # without the checks of types that the tests have


def initialized(*arguments, x=ONE, **attributes):
    return Conv(*arguments, **attributes).init(jax.random.key(0), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: untyped(ONE[0], KERNEL), r"x has the shape \(4, 5, 2\).*\[batch, height, width, in\]"),
        (lambda: untyped(ONE, KERNEL[0]), r"the kernel \(3, 2, 2\).*\[rows, columns, in / groups, out\]"),
        (lambda: untyped(ONE[:, :0], KERNEL, padding=1), r"x has the shape \(1, 0, 5, 2\).*at least one cell"),
        (lambda: untyped(ONE, KERNEL[:0]), r"the kernel \(0, 3, 2, 2\).*at least one cell"),
        (lambda: untyped("ab", KERNEL), r"x is of type str; it must be one array, \[batch"),
        (lambda: untyped(ONE, [[1.0], [1.0, 2.0]]), r"kernel is of type list; it must be one array, \[rows"),
        (lambda: untyped(ONE.astype(int), KERNEL.astype(int)), "x is int32 and the kernel int32; cast both"),
        (lambda: untyped(jnp.asarray(ONE, jnp.bfloat16), KERNEL), "x is bfloat16 and the kernel float32; cast both"),
        (lambda: untyped(ONE[..., :1], KERNEL), "x has 1 channels, the kernel 2 in and 2 out, with groups 1"),
        (lambda: untyped(ONE[..., :0], KERNEL[:, :, :0]), "x has 0 channels.*each must be at least 1"),
        (
            lambda: untyped(ONE, KERNEL[:, :, :1, :1], groups=2),
            "1 out, with groups 2.*the groups must divide the outputs",
        ),
        (lambda: untyped(ONE, KERNEL, groups=0), "with groups 0"),
        (lambda: untyped(ONE, KERNEL, 0), "stride is 0; the smallest value allowed is 1"),
        (lambda: untyped(ONE, KERNEL, (1, 1)), r"stride is \(1, 1\); it must be an integer"),
        (lambda: untyped(ONE, KERNEL, padding="SAME"), "padding is 'SAME'; it must be an integer"),
        (lambda: untyped(ONE, KERNEL, padding=-1), "padding is -1; the smallest value allowed is 0"),
        (lambda: untyped(ONE, KERNEL, dilation=0), "dilation is 0; the smallest value allowed is 1"),
        (
            lambda: untyped(ONE, KERNEL, dilation=2),
            r"window \(5, 5\) is larger than the map \(4, 5\) with the padding 0",
        ),
        (lambda: initialized(0, (3, 3)), "features is 0; the smallest value allowed is 1"),
        (lambda: initialized(2, (3, 3), feature_group_count=0), "feature_group_count is 0; the smallest value"),
        (lambda: initialized(3, (3, 3), feature_group_count=3), r"\(1, 4, 5, 2\) and feature_group_count is 3"),
        (lambda: initialized(2, (3, 3), x=ONE[..., :0]), r"\(1, 4, 5, 0\).*must divide its channels"),
        (lambda: initialized(2, (3, 3), x=ONE[0]), r"\(4, 5, 2\).*x must be \[batch, height, width, in\]"),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_batch_gives_an_empty_result():
    assert conv(ONE[:0], KERNEL, padding=1).shape == (0, 4, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "fft"}, r"method is 'fft'.*plain, barriers, winograd, patches"),
        ({"groups": 2, "method": "patches"}, r"'patches' has one group and groups is 2"),
        ({"stride": 2, "method": "winograd"}, r"'winograd' needs a 3x3 kernel.*got 3x3, 2, 0, 1 and float32"),
        ({"padding": 3, "method": "winograd"}, r"'winograd' needs .*got 3x3, 1, 3, 1 and float32"),
    ],
)
def test_methods_that_cannot_compute_it_are_refused(arguments, message):
    x, kernel = arrays(1, 9, 9, 4, 4, 3)
    with pytest.raises(ValueError, match=message):
        conv(x, kernel[:, :, : 4 // arguments.get("groups", 1)], **arguments)


def test_parameters_are_float32_also_where_jax_has_64_bits():
    with jax.enable_x64(True):
        variables = Conv(2, (3, 3)).init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_a_map_that_would_take_winograds_algorithm_may_be_split_over_an_explicit_mesh():
    generator = np.random.default_rng(0)
    x, kernel = (jnp.asarray(generator.normal(size=s), jnp.float32) for s in ((8, 16, 16, 64), (3, 3, 64, 64)))
    value = jax.value_and_grad(lambda x, kernel: (conv(x, kernel, padding=1, method=None) ** 2).mean(), (0, 1))
    want = jax.jit(value)(x, kernel)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        got = jax.jit(value)(split, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec())))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)


def test_an_empty_batch_has_an_empty_result_by_every_method():
    for method in ("plain", "barriers", "winograd", None):
        assert conv(jnp.ones((0, 8, 8, 64)), jnp.ones((3, 3, 64, 64)), padding=1, method=method).shape == (0, 8, 8, 64)
