"""The constants of batch normalization, for our module and for Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_images, draw_variables

from fcn_jax.layers import BatchNorm
from fcn_jax.models.backbones.norm import configure_norm

norms = pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm])


@norms
def test_statistics_move_by_a_tenth(norm):
    layer, x = configure_norm(norm, True, jnp.float32)(), draw_images(2, 4, 4)
    variables = layer.init(jax.random.key(0), x)
    _, updates = layer.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-4)


@norms
def test_epsilon_is_added_to_the_variance(norm):
    for epsilon, options in ((1e-5, {}), (1e-3, {"epsilon": 1e-3})):
        layer, x = configure_norm(norm, False, jnp.float32, **options)(), np.ones((1, 1, 1, 1), np.float32)
        variables = {"params": {"scale": np.ones(1), "bias": np.zeros(1)}}
        variables["batch_stats"] = {"mean": np.zeros(1), "var": np.zeros(1)}
        variables = jax.tree.map(jnp.float32, variables)
        np.testing.assert_allclose(layer.apply(variables, x).item(), epsilon**-0.5, rtol=1e-4)


@norms
def test_scale_and_bias_of_frozen_norms_have_gradients(norm):
    layer, x = configure_norm(norm, False, jnp.float32)(), draw_images(2, 4, 4)
    variables = draw_variables(layer, x)
    gradient = jax.grad(lambda params: (layer.apply({**variables, "params": params}, x) ** 2).sum())
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(gradient(variables["params"])))
