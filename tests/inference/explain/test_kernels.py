"""Changes of upsampling kernels, against loops over their weights."""

import numpy as np
import pytest
from random_network import network
from small_runs import NORMED

from fcn_jax.inference.explain.kernels import draw_kernels, list_kernels, measure_change
from fcn_jax.layers import bilinear_init
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN, FCN8s


def test_a_change_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    start = np.asarray(bilinear_init(None, (4, 4, 3, 3)))
    kernel = start + generator.normal(0, 0.1, start.shape).astype(np.float32)
    change = measure_change(kernel)
    for i, j in np.ndindex(4, 4):
        # The weight with which a cell adds to the place (i, j) of its copy: kernels are mirrored.
        expected = np.mean([kernel[3 - i, 3 - j, c, c] for c in range(3)])
        assert change.learned[i, j] == pytest.approx(expected, rel=1e-5)
    mixing = max(abs(kernel[i, j, a, b]) for i, j, a, b in np.ndindex(kernel.shape) if a != b)
    assert change.largest_mixing == pytest.approx(mixing)
    squares = [sum(float(v) ** 2 for v in array.ravel()) for array in (kernel - start, start)]
    assert change.relative == pytest.approx((squares[0] / squares[1]) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 1, 1), (3, 3, 5, 5), (64, 64, 2, 2)])
def test_a_bilinear_kernel_has_not_changed(shape):
    change = measure_change(np.asarray(bilinear_init(None, shape)))
    np.testing.assert_allclose(change.learned, change.bilinear, atol=1e-7)
    assert (change.largest_mixing, change.relative) == (0.0, 0.0)


def test_the_kernels_of_a_network_in_the_order_of_the_upsampling():
    model, variables = network()
    kernels = list_kernels(model, variables["params"])
    assert list(kernels) == ["upscore2", "upscore_pool4", "upscore8"]
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(kernel, variables["params"][name]["kernel"])
    (figure,) = draw_kernels(model, variables["params"])
    assert all(name in figure.caption for name in kernels)


class OwnUpsampling(FCN):
    def upsample(self, x, to, name):
        return super().upsample(x, to, name)


@pytest.mark.parametrize(
    "model", [FCN8s(4, NORMED, upsampling="fixed"), DilatedFCN(4, NORMED), OwnUpsampling(4, NORMED)]
)
def test_other_upsampling_has_no_figure(model):
    params = network()[1]["params"] if isinstance(model, OwnUpsampling) else {}
    assert list_kernels(model, params) == {}
    assert draw_kernels(model, params) == []
