"""Each translated operation, in onnxruntime, against JAX: for sizes that the graph does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export, lax
from onnx import TensorProto

from fcn_jax.errors import InputError
from fcn_jax.inference.export.onnx_graph import Graph, Value, make_model, translate
from fcn_jax.layers import conv_transpose, max_pool, plain_methods, upsample_bilinear

RNG = np.random.default_rng(0)


def run_in_onnx(function, x: np.ndarray):
    """Write a function of maps [batch, 8 * m, 8 * n, channels] as ONNX, and compute it for one of them."""
    batch, down, across = export.symbolic_shape("batch, down, across")
    shape = (batch, 8 * down, 8 * across, x.shape[-1])
    with plain_methods():
        program = jax.jit(function).trace(jax.ShapeDtypeStruct(shape, x.dtype)).jaxpr
    graph = Graph()
    sides = [graph.add("Slice", graph.add("Shape", "x"), np.array([i]), np.array([i + 1])) for i in range(3)]
    symbols = {batch: sides[0]}
    for symbol, side in ((down, sides[1]), (across, sides[2])):
        symbols[symbol] = graph.add("Div", side, np.array([8]))
    (y,) = translate(graph, program, [Value("x", shape, shape)], symbols)
    graph.add("Identity", y.data, name="y")
    kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "bool": TensorProto.BOOL}
    out = program.jaxpr.outvars[0].aval
    model = make_model(
        graph,
        {"x": (kinds[str(x.dtype)], ["b", "h", "w", x.shape[-1]])},
        {"y": (kinds[str(out.dtype)], [None] * len(out.shape))},
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": x})[0]


def check(function, channels: int = 3, dtype=np.float32) -> None:
    for shape in ((2, 16, 24, channels), (1, 8, 8, channels)):
        x = RNG.normal(size=shape).astype(dtype) if dtype == np.float32 else RNG.integers(-9, 10, shape, dtype)
        expected = np.asarray(function(jnp.asarray(x)))
        given = run_in_onnx(function, x)
        assert given.dtype == expected.dtype
        np.testing.assert_allclose(np.broadcast_to(given, expected.shape), expected, rtol=1e-5, atol=1e-5)


def _convolve_sideways(x):
    return lax.conv_general_dilated(
        x, jnp.ones((1, 3, 3, 3)), (1, 1), "VALID", dimension_numbers=("NHWC", "OHWI", "NHWC")
    )


def kernel(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("groups", "stride", "pads", "dilation"),
    [(1, 1, ((1, 1), (1, 1)), 1), (1, 2, ((3, 2), (0, 1)), 1), (2, 1, ((2, 2), (2, 2)), 2)],
)
def test_convolutions(groups, stride, pads, dilation):
    weights = kernel(3, 3, 4 // groups, 6)

    def convolve(x):
        return lax.conv_general_dilated(
            x, weights, (stride, stride), pads, rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    check(convolve, channels=4)


@pytest.mark.parametrize(("stride", "side", "padding"), [(2, 4, 1), (8, 16, 4), (2, 3, (0, 1)), (4, 8, -2)])
def test_transposed_convolutions(stride, side, padding):
    weights = kernel(side, side, 4, 5)
    crops = padding if isinstance(padding, tuple) else (padding, padding)
    check(lambda x: conv_transpose(x, weights, (stride, stride), (crops, crops)), channels=4)


def test_transposed_convolutions_in_groups():
    weights = kernel(4, 4, 2, 6)
    check(lambda x: conv_transpose(x, weights, (2, 2), 1, feature_group_count=2), channels=4)


def test_bilinear_upsampling():
    check(lambda x: upsample_bilinear(x, 4))


@pytest.mark.parametrize(("window", "stride", "padding", "ceil"), [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True)])
def test_pooling(window, stride, padding, ceil):
    check(lambda x: max_pool(x, window, stride, padding, ceil=ceil))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.maximum(x, 0) + jnp.minimum(x, 0.5) - jnp.abs(x) * 2,
        lambda x: x * lax.rsqrt(x * x + 1) / 3 - (x * x + 1.0) ** -0.75,
        lambda x: jnp.where((x > 0) & (x < 1), jnp.exp(x), jnp.sqrt(jnp.abs(x))),
        lambda x: -jnp.flip(x, axis=-1),
        lambda x: jnp.transpose(x, (0, 2, 1, 3)),
        lambda x: jnp.concatenate([x, 2 * x], axis=-1),
        lambda x: jnp.concatenate([x, jnp.broadcast_to(jnp.ones(3), x.shape)], axis=-1),
        lambda x: lax.pad(x, jnp.float32(7), [(0, 0, 0), (1, 2, 0), (-1, -2, 0), (0, 0, 0)]),
        lambda x: lax.slice_in_dim(x, 1, 3, axis=2) + lax.slice_in_dim(x, 0, 1, axis=2),
        lambda x: lax.slice(x, (0, 1, 2, 0), (x.shape[0], x.shape[1], x.shape[2] - 3, 3), (1, 2, 1, 1)),
        lambda x: jnp.where(jnp.arange(x.shape[1])[None, :, None, None] < 5, x, 0),
        lambda x: x + jnp.arange(3.0).reshape(1, 1, 1, 3) * lax.stop_gradient(jnp.float32(2)),
    ],
)
def test_elementwise_operations_and_shapes(function):
    check(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.einsum("nhwc,cd->nhwd", x, jnp.arange(15.0).reshape(3, 5)),
        lambda x: jnp.einsum("nhwc,nwkc->nhk", x, x.transpose(0, 2, 1, 3)),
        lambda x: jnp.einsum("nih,nhwc->niwc", jnp.broadcast_to(jnp.ones((1, 4, 1)), (x.shape[0], 4, x.shape[1])), x),
        lambda x: lax.index_in_dim(x, 1, axis=3, keepdims=False) * lax.squeeze(jnp.ones((1, 1, 1, 1)), (3,)),
    ],
)
def test_products_and_single_indices(function):
    check(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x // 4,
        lambda x: lax.rem(x, jnp.int32(4)) + lax.div(x, jnp.int32(4)),
        lambda x: jnp.sign(x) * (x != 2).astype(jnp.int32),
        lambda x: x.astype(jnp.float32) * 0.5,
    ],
)
def test_integers_round_as_in_jax(function):
    """Down for `//`, and towards zero for `lax.div`."""
    check(function, dtype=np.int32)


def test_the_same_operation_is_one_node():
    graph = Graph()
    ones = np.ones(3, np.float32)
    assert graph.add("Add", "x", ones) == graph.add("Add", "x", ones.copy())
    assert graph.add("Add", "x", 2 * ones) != graph.add("Add", "x", ones)
    assert len(graph.nodes) == len(graph.arrays) == 2


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (jnp.sin, "the operation sin"),
        (lambda x: lax.pad(x, jnp.float32(0), [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "pads between values"),
        (lambda x: _convolve_sideways(x), "another layout"),
    ],
)
def test_what_is_not_translated_is_named(function, what):
    with pytest.raises(InputError, match=f"cannot be written as ONNX: it .*{what}"):
        run_in_onnx(function, np.zeros((1, 8, 8, 3), np.float32))
