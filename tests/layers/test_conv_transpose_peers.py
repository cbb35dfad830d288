"""Transposed convolution against PyTorch and Flax, and with their weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layer_loops import assert_close, draw, quick_jit, with_gradients

from fcn_jax.layers import ConvTranspose, conv_transpose, conv_transpose_size


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
