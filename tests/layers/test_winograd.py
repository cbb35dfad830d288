"""Winograd's algorithm against the direct sum in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from layer_loops import conv_loop

from fcn_jax.layers.winograd import (
    add_and_subtract_pairs,
    choose_tile,
    make_transforms,
    winograd_conv,
    winograd_kernel_gradient,
)


@pytest.mark.parametrize("tile", [2, 4])
def test_transforms_compute_a_convolution(tile):
    for_results, for_kernels, for_windows = make_transforms(tile)
    rng = np.random.default_rng(0)
    cells, numbers = rng.normal(size=(tile + 2, 10)), rng.normal(size=(3, 10))
    products = (for_kernels @ numbers) * add_and_subtract_pairs(for_windows @ cells)
    expected = [np.correlate(*one) for one in zip(cells.T, numbers.T, strict=True)]
    np.testing.assert_allclose((for_results @ add_and_subtract_pairs(products)).T, expected, atol=1e-6)


@pytest.mark.parametrize(("size", "tile", "error"), [(22, 2, 1e-6), (60, 4, 4e-6)])
def test_rounding_error_is_as_documented(size, tile, error):
    """With many channels of positive values, as after a ReLU. The direct sum has 3e-7 with AVX-512, 9e-7 with AVX2."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(1, size, size, 512)), 0).astype(np.float32)
    kernel = (rng.normal(size=(3, 3, 512, 16)) / 68).astype(np.float32)
    assert choose_tile(1, size - 2, size - 2) == tile
    expected = sum(
        x[:, i : i + size - 2, j : j + size - 2].astype(np.float64) @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    largest = np.abs(expected).max()
    np.testing.assert_allclose(winograd_conv(jnp.asarray(x), jnp.asarray(kernel), 0), expected, atol=error * largest)


@pytest.mark.parametrize(("size", "tile", "error"), [((17, 18), 2, 1e-6), ((55, 58), 4, 3e-6)])
def test_rounding_error_of_the_kernel_gradient(size, tile, error):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(2, *size, 128)), 0).astype(np.float32)
    rows, columns = size[0] - 2, size[1] - 2
    assert choose_tile(2, rows, columns) == tile
    gradient = rng.normal(size=(2, rows, columns, 24)).astype(np.float32)
    seen = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (rows, columns), axis=(1, 2))
    expected = np.einsum("bijcrs,brso->ijco", seen, gradient, optimize=True)
    got = winograd_kernel_gradient(jnp.asarray(x), jnp.asarray(gradient), 0)
    np.testing.assert_allclose(got, expected, atol=error * np.abs(expected).max())


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(6, 6), (5, 7), (3, 4)])
def test_small_whole_numbers_are_exact(size, padding):
    """With tiles of two the transforms of small whole numbers are exact in float32."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-8, 9, (2, *size, 3)), np.float32)
    kernel = jnp.asarray(4 * rng.integers(-8, 9, (3, 3, 3, 5)), np.float32)  # halved twice
    expected = conv_loop(x, kernel, padding=padding)
    np.testing.assert_array_equal(winograd_conv(x, kernel, padding), expected)
    rotated = winograd_conv(x, kernel[::-1, ::-1].swapaxes(2, 3), padding, rotate=True)
    np.testing.assert_array_equal(rotated, expected)
