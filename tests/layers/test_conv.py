"""The convolution made for CPUs against `lax.conv_general_dilated`, against a loop, and against Flax's module."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from fcn_jax.layers import conv as module
from fcn_jax.layers.conv import Conv, compiler_options, conv
from fcn_jax.layers.winograd import best_tile, sums_and_differences, transforms, winograd_conv, winograd_kernel_gradient

# batch, height, width, in, out, kernel, stride, padding, dilation: large and small maps, one smaller than the kernel,
# one just as large, and those whose sides are odd or that take Winograd's way.
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
    "winograd by fours": (8, 20, 18, 64, 72, 3, 1, 1, 1),
    "winograd by fours, odd, unpadded": (1, 53, 52, 72, 64, 3, 1, 0, 1),
}


def arrays(batch, height, width, ins, outs, window):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, ins))
    kernel = rng.normal(size=(window, window, ins, outs)) / (window * ins**0.5)
    return jnp.asarray(x, np.float32), jnp.asarray(kernel, np.float32)


def peer(x, kernel, stride=1, padding=0, dilation=1, groups=1):
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
    """As without virtual devices; what several compute is tested with what they say to each other."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def pulled_back(function, x, kernel, gradient):
    value, back = jax.vjp(function, x, kernel)
    return value, *back(gradient)


OPTIONS = {
    "plainly": None,
    "as steps are": compiler_options(),
    "as forward passes are": compiler_options(training=False),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(case, options):
    *shape, stride, padding, dilation = case
    x, kernel = arrays(*shape)
    ours, peers = (functools.partial(f, stride=stride, padding=padding, dilation=dilation) for f in (conv, peer))
    gradient = np.random.default_rng(1).normal(size=jax.eval_shape(peers, x, kernel).shape).astype(np.float32)
    got = jax.jit(functools.partial(pulled_back, ours), compiler_options=options)(x, kernel, gradient)
    for a, b in zip(got, pulled_back(peers, x, kernel, gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
    # Forward mode, in one argument and in both.
    two = peers(x, kernel)
    for argument, tangent, times in ((ours, (x, kernel), 2), (functools.partial(ours, x), (kernel,), 1)):
        _, pushed = jax.jvp(argument, tangent, tangent)
        np.testing.assert_allclose(pushed, times * two, atol=1e-5 * np.abs(two).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_definition(case):
    *shape, stride, padding, dilation = case
    x, kernel = arrays(*shape)
    window = (kernel.shape[0] - 1) * dilation + 1
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (range(0, side - window + 1, stride) for side in padded.shape[1:3])
    expected = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            seen = padded[:, row : row + window : dilation, column : column + window : dilation]
            expected[:, i, j] = np.tensordot(seen, np.asarray(kernel, np.float64), 3)
    np.testing.assert_allclose(conv(x, kernel, stride, padding, dilation), expected, atol=1e-5)


@pytest.mark.parametrize("case", ["large", "winograd", "winograd by fours"])
def test_second_derivatives(case):
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)

    def loss(function, kernel):
        return jnp.mean(function(x, kernel, stride, padding, dilation) ** 3)

    def curvature(function):
        return jax.grad(lambda k: jnp.sum(jax.grad(functools.partial(loss, function))(k) ** 2))(kernel)

    ours, peers = curvature(conv), curvature(peer)
    np.testing.assert_allclose(ours, peers, atol=1e-4 * np.abs(peers).max())


@pytest.mark.parametrize("case", ["large", "small", "winograd, odd"])
def test_several_kernels_at_once(case):
    """As in an ensemble: mapped over kernels, with its gradient."""
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)
    kernels = jnp.stack([kernel, -2 * kernel, kernel[::-1]])
    gradient = jax.grad(lambda k: jnp.sum(conv(x, k, stride, padding, dilation) ** 2))
    at_once = jax.vmap(gradient)(kernels)
    for got, one in zip(at_once, kernels, strict=True):
        want = gradient(one)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("case", ["large", "winograd by fours"])
def test_several_batches_at_once(case):
    *shape, stride, padding, dilation = CASES[case]
    x, kernel = arrays(*shape)
    batches = jnp.stack([x, -2 * x])
    gradient = jax.grad(lambda x: jnp.sum(conv(x, kernel, stride, padding, dilation) ** 2))
    for got, one in zip(jax.vmap(gradient)(batches), batches, strict=True):
        want = gradient(one)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("case", [case for case in CASES if "fours" in case])
def test_these_cases_are_by_fours(case):
    batch, height, width, _, _, _, _, padding, _ = CASES[case]
    assert best_tile(batch, height + 2 * padding - 2, width + 2 * padding - 2) == 4


def test_groups_and_half_precision():
    x, kernel = arrays(2, 9, 8, 6, 4, 3)
    np.testing.assert_array_equal(conv(x, kernel[:, :, :3], 1, 1, 1, 2), peer(x, kernel[:, :, :3], 1, 1, 1, 2))
    x, kernel = (jnp.asarray(array, jnp.bfloat16) for array in arrays(1, 24, 24, 64, 64, 3))
    got = conv(x, kernel, 1, 1)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), peer(x, kernel, 1, 1).astype(np.float32), atol=0.05)


@pytest.mark.parametrize("tile", [2, 4])
def test_transforms_multiply_a_convolution(tile):
    of_result, of_kernel, of_window = transforms(tile)
    rng = np.random.default_rng(0)
    cells, numbers = rng.normal(size=(tile + 2, 10)), rng.normal(size=(3, 10))
    products = (of_kernel @ numbers) * sums_and_differences(of_window @ cells)
    expected = [np.correlate(*one) for one in zip(cells.T, numbers.T, strict=True)]
    np.testing.assert_allclose((of_result @ sums_and_differences(products)).T, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "tile", "error"), [(22, 2, 1e-6), (60, 4, 3e-6)])
def test_rounding_of_winograds_way(size, tile, error):
    """What its file says of it, with many channels that are positive, as after a ReLU; the direct sum has 3e-7."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(1, size, size, 512)), 0).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, 512, 16)) / 68).astype(np.float32)
    assert best_tile(1, size - 2, size - 2) == tile
    expected = sum(
        x[:, i : i + size - 2, j : j + size - 2].astype(np.float64) @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    largest = np.abs(expected).max()
    np.testing.assert_allclose(winograd_conv(jnp.asarray(x), jnp.asarray(kernel), 0), expected, atol=error * largest)


@pytest.mark.parametrize(("size", "tile", "error"), [((17, 18), 2, 1e-6), ((55, 58), 4, 3e-6)])
def test_rounding_of_a_kernels_gradient(size, tile, error):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(2, *size, 128)), 0).astype(np.float32)
    rows, columns = size[0] - 2, size[1] - 2
    assert best_tile(2, rows, columns) == tile
    gradient = rng.normal(size=(2, rows, columns, 24)).astype(np.float32)
    seen = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (rows, columns), axis=(1, 2))
    expected = np.einsum("bijcrs,brso->ijco", seen, gradient, optimize=True)
    got = winograd_kernel_gradient(jnp.asarray(x), jnp.asarray(gradient), 0)
    np.testing.assert_allclose(got, expected, atol=error * np.abs(expected).max())


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(6, 6), (5, 7), (3, 4)])
def test_winograd_is_exact_up_to_rounding(size, padding):
    """By twos, against the direct sum in float64, from small whole numbers, whose transforms are exact in float32."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-8, 9, (2, *size, 3)), np.float32)
    kernel = jnp.asarray(4 * rng.integers(-8, 9, (3, 3, 3, 5)), np.float32)  # halved twice
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = size[0] + 2 * padding - 2, size[1] + 2 * padding - 2
    expected = sum(
        padded[:, i : i + rows, j : j + columns] @ np.asarray(kernel[i, j], np.float64)
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_array_equal(winograd_conv(x, kernel, padding), expected)
    turned = winograd_conv(x, kernel[::-1, ::-1].swapaxes(2, 3), padding, turned=True)
    np.testing.assert_array_equal(turned, expected)


def test_maps_of_many_channels_take_winograds_way():
    """16 multiplications a channel where the direct sum takes 36, gradients as well: XLA counts what is computed."""

    def operations(channels):
        x = jax.ShapeDtypeStruct((1, 40, 40, channels), np.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), np.float32)
        step = jax.jit(lambda x, kernel: pulled_back(functools.partial(conv, padding=1), x, kernel, x))
        return step.lower(x, kernel).compile().cost_analysis()["flops"] / (3 * 2 * 40 * 40 * 9 * channels**2)

    assert 0.9 < operations(32) < 1.1
    assert 0.4 < operations(256) < 0.6


def test_options_are_known_to_this_version():
    forward, step = compiler_options(training=False), compiler_options()
    assert step  # no longer known: the step is half as fast, look for their successors
    assert forward.items() > step.items()
    for options in (step, forward):
        compiled = jax.jit(lambda x: lax.optimization_barrier(x * 2) + 1, compiler_options=options)
        assert "barrier" in compiled.lower(np.float32(0)).compile().as_text()


@pytest.mark.parametrize("use_bias", [False, True])
def test_module_is_flax_conv(use_bias):
    x, _ = arrays(2, 6, 7, 3, 4, 3)
    ours = Conv(4, (3, 3), strides=2, padding=1, use_bias=use_bias, bias_init=nn.initializers.normal())
    peers = nn.Conv(4, (3, 3), strides=2, padding=1, use_bias=use_bias, bias_init=nn.initializers.normal())
    variables, expected = (layer.init(jax.random.key(0), x) for layer in (ours, peers))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    np.testing.assert_allclose(ours.apply(variables, x), peers.apply(variables, x), atol=1e-5)

    def gradient(layer):
        return jax.grad(lambda v: (layer.apply(v, x) ** 2).sum())(variables)

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), gradient(ours), gradient(peers))


def test_accelerators_have_the_plain_convolution(monkeypatch):
    x, kernel = arrays(*CASES["winograd"][:6])
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    operations = str(jax.make_jaxpr(functools.partial(conv, padding=1))(x, kernel))
    assert operations.count("conv_general_dilated") == 1
    assert "barrier" not in operations
