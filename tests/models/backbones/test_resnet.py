"""ResNet: dilation in place of strides, and its maps under an FCN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_images, draw_variables

from fcn_jax.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fcn_jax.models.fcn import FCN8s
from fcn_jax.models.feature_map import FeatureMap

SMALL = {
    "basic": ResNet(depths=(1, 1, 2, 2), width=8),
    "bottleneck": ResNet(depths=(1, 1, 2, 2), width=4, block=Bottleneck),
}


def draw_map(*shape: int) -> FeatureMap:
    return FeatureMap(jnp.asarray(draw_images(*shape)))


@pytest.mark.parametrize(("name", "output_stride"), [("basic", 8), ("bottleneck", 16)])
def test_dilation_gives_the_undilated_cells_and_those_between(name, output_stride):
    """Every second or fourth cell of the dilated maps (Chen et al. 2015) is a cell of the others."""
    plain, x = SMALL[name], draw_map(2, 75, 97)
    dilated = plain.clone(output_stride=output_stride)
    variables = draw_variables(plain, x)
    shapes = jax.eval_shape(dilated.init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    want, got = (jax.jit(model.apply)(variables, x) for model in (plain, dilated))
    for few, many, stride in zip(want, got, (8, 16, 32), strict=True):
        assert (few.stride, many.stride, many.offset) == (stride, min(stride, output_stride), 0)
        step = few.stride // many.stride
        cells = many.values[:, ::step, ::step]
        assert many.shape == tuple(-(-n // many.stride) for n in x.shape)
        np.testing.assert_allclose(cells, few.values, atol=1e-4 * np.abs(few.values).max(), rtol=1e-5)


@pytest.mark.slow
def test_blocks_can_be_computed_again_for_the_gradient():
    plain, x = SMALL["basic"], draw_map(2, 40, 56)
    again = plain.clone(block=nn.remat(BasicBlock, static_argnums=2))
    variables = draw_variables(plain, x)

    def sum_maps(params, model):
        maps, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return sum((one.values**2).sum() for one in maps)

    want, got = (jax.jit(jax.grad(sum_maps), static_argnums=1)(variables["params"], model) for model in (plain, again))
    assert "remat" in str(jax.make_jaxpr(jax.grad(sum_maps), static_argnums=1)(variables["params"], again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max()), want, got)


def test_another_output_stride_is_refused():
    with pytest.raises(ValueError, match="output_stride is 4; it must be one of 8, 16, 32"):
        ResNet(output_stride=4).init(jax.random.key(0), draw_map(1, 8, 8))


def test_maps_of_one_grid_are_added_as_they_are():
    """An FCN on a backbone dilated to stride 8 adds its maps without upsampling, and upsamples the sum by 8."""
    dilated = SMALL["bottleneck"].clone(output_stride=8)
    model = FCN8s(num_classes=4, backbone=dilated)
    x = draw_images(1, 40, 56)
    variables = draw_variables(model, x)
    assert set(variables["params"]) == {"backbone", "score_fr", "score_pool4", "score_pool3", "upscore8"}
    assert variables["params"]["upscore8"]["kernel"].shape == (15, 15, 4, 4)
    maps = jax.jit(dilated.apply)({c: tree["backbone"] for c, tree in variables.items()}, draw_map(1, 40, 56))
    params = variables["params"]
    total = sum(
        m.values @ params[name]["kernel"][0, 0] + params[name]["bias"].reshape(1, 1, 1, -1)
        for m, name in zip(maps, ("score_pool3", "score_pool4", "score_fr"), strict=True)
    )
    # At the centre of a cell the middle of the odd kernel is the only tap.
    eye = {**params, "upscore8": {"kernel": np.zeros((15, 15, 4, 4), np.float32)}}
    eye["upscore8"]["kernel"][7, 7] = np.eye(4)
    logits = jax.jit(model.apply)({**variables, "params": eye}, x)
    np.testing.assert_allclose(logits[:, ::8, ::8], total, atol=1e-4 * np.abs(total).max(), rtol=1e-4)
