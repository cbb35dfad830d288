"""What the layers have in common: examples, one compilation per shape, symbolic batches, NumPy's sizes."""

import doctest
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
from layer_loops import assert_close, draw, export_for_every_size

from fcn_jax import layers
from fcn_jax.layers import (
    ConvTranspose,
    conv_transpose,
    conv_transpose_size,
    depth_to_space,
    max_pool,
    upsample_bilinear,
)

ONE, KERNEL = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 2), np.float32)


def test_every_public_name_has_an_example_and_every_example_holds():
    for name in layers.__all__:
        assert ">>>" in inspect.getdoc(getattr(layers, name)), name
    names = {name: getattr(layers, name) for name in layers.__all__} | {"jax": jax, "jnp": jnp}
    modules = {getattr(layers, name).__module__ for name in layers.__all__}
    results = [doctest.testmod(sys.modules[module], extraglobs=names) for module in modules]
    assert sum(result.attempted for result in results) >= 30
    assert sum(result.failed for result in results) == 0


def test_shapes_are_compiled_once():
    traces = []

    @jax.jit
    def run(x, kernel):
        traces.append(x.shape)
        return conv_transpose(x, kernel, 2, 1), max_pool(x, 2, ceil=True), upsample_bilinear(x, 2)

    for seed in range(3):
        run(draw(1, 3, 3, 2, seed=seed), draw(4, 4, 2, 2))
    assert len(traces) == 1


def test_symbolic_batches_are_exported():
    exported = export_for_every_size(
        lambda x: (conv_transpose(x, KERNEL, 2), upsample_bilinear(x, 2), max_pool(x, 2), depth_to_space(x, (1, 2))),
        "b, 4, 4, 2",
    )
    x = draw(3, 4, 4, 2)
    want = conv_transpose(x, KERNEL, 2), upsample_bilinear(x, 2), max_pool(x, 2), depth_to_space(x, (1, 2))
    jax.tree.map(assert_close, tuple(exported.call(x)), want)


def test_symbolic_sizes_are_exported():
    def run(x):
        return conv_transpose(x, KERNEL, 2, 1), upsample_bilinear(x, 2), max_pool(x, 2, ceil=True), max_pool(x, 3, 2, 1)

    exported = export_for_every_size(run, "b, 2*h, 2*w, 2")
    x = draw(3, 4, 6, 2)
    jax.tree.map(assert_close, tuple(exported.call(x)), run(x))


def test_sizes_may_be_numpy_arrays():
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
