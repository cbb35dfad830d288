"""Local response normalization against its formula. test_reference.py compares whole networks with Caffe's."""

import jax.numpy as jnp
import numpy as np

from fcn_jax.models.backbones.local_response_norm import local_response_norm


def test_local_response_norm_is_its_formula():
    x = np.random.default_rng(0).normal(0, 30, (2, 3, 7)).astype(np.float32)
    expected = np.zeros_like(x)
    for channel in range(7):
        around = x[..., max(0, channel - 2) : channel + 3].astype(np.float64)
        expected[..., channel] = x[..., channel] / (1 + 1e-2 / 5 * (around**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x), alpha=1e-2), expected, rtol=1e-5)


def test_numbers_of_16_bits_do_not_overflow():
    x = jnp.full((1, 8), 300.0)
    got = local_response_norm(x.astype(jnp.float16))
    assert got.dtype == jnp.float16
    np.testing.assert_allclose(got, local_response_norm(x), rtol=2e-3)
