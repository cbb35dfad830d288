"""Where the maps of AlexNet and GoogLeNet lie: centres, receptive fields, small images, images on a canvas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import draw_variables

from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.fcn import FCN8s, alignment
from fcn_jax.models.feature_map import FeatureMap

NETS = {
    "alexnet": AlexNet(fc_features=8),
    "alexnet, reference": AlexNet(fc_features=8, padding="reference"),
    "googlenet": GoogLeNet(),
    "googlenet_bn": GoogLeNet(with_bn=True),
}


@pytest.mark.parametrize(
    ("name", "reach", "offset"),
    # Half of the receptive field of a cell of the coarsest map: 355, 715 and 379 pixels wide.
    [("alexnet", 177, 12), pytest.param("googlenet", 357, 30, marks=pytest.mark.slow), ("googlenet_bn", 189, 22)],
)
def test_receptive_fields_lie_around_the_centres(name, reach, offset):
    """A NaN in the outermost rows of a cell's receptive field reaches it; a NaN in the next rows does not."""
    net, cell = NETS[name], 12
    centre = offset + 32 * cell
    rows = [centre - reach, centre - reach - 1, centre + reach, centre + reach + 1]
    images = np.ones((4, centre + reach + 33, 1, 3), np.float32)
    images[np.arange(4), rows] = np.nan
    shapes = jax.eval_shape(net.init, jax.random.key(0), FeatureMap(jnp.ones((1, 8, 1, 3))))
    variables = jax.tree.map(lambda shape: jnp.full(shape.shape, 0.01), shapes)
    top = jax.jit(net.apply)(variables, FeatureMap(jnp.asarray(images)))[2]
    assert (top.stride, top.offset) == (32, offset)
    assert np.isnan(top.values[:, cell, 0]).any(axis=-1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("name", ["alexnet", "alexnet, reference", "googlenet"])
def test_any_size_gives_logits_of_that_size(name):
    model = FCN8s(num_classes=4, backbone=NETS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    for height in (1, 2, 17, 67):
        images = jax.ShapeDtypeStruct((2, height, 68 - height, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes, images).shape == (2, height, 68 - height, 4)


def test_kernels_and_crops_follow_from_the_maps():
    image = FeatureMap(jnp.zeros((1, 227, 227, 3)))
    expected = {"alexnet": (3, 63, 19), "alexnet, reference": (3, 63, 18), "googlenet": (3, 63, 1)}
    expected["googlenet_bn"] = (4, 63, 9)  # its last pooling is 2x2
    for name, (inner, outer, crop) in expected.items():
        maps = jax.eval_shape(lambda net=NETS[name]: net.init_with_output(jax.random.key(0), image)[0])
        assert [m.stride for m in maps] == [8, 16, 32]
        assert alignment(maps[2], maps[1])[0] == inner
        kernel, factor, ((top, _), _) = alignment(maps[2], image)
        assert (kernel, factor, top) == (outer, 32, crop)


@pytest.mark.parametrize("name", ["alexnet", "alexnet, reference", pytest.param("googlenet", marks=pytest.mark.slow)])
def test_image_on_a_canvas_has_the_maps_it_has_alone(name):
    net = NETS[name]
    canvas = np.random.default_rng(1).normal(size=(3, 48, 56, 3)).astype(np.float32)
    sizes = np.array([(1, 2), (33, 47), (48, 56)], np.int32)
    variables = draw_variables(net, FeatureMap(jnp.asarray(canvas)), fan_in_of_vectors=100)
    apply = jax.jit(net.apply)
    together = apply(variables, FeatureMap(jnp.asarray(canvas), jnp.asarray(sizes)))
    for index, (height, width) in enumerate(sizes[:2]):
        alone = apply(variables, FeatureMap(jnp.asarray(canvas[index : index + 1, :height, :width])))
        for mine, whole in zip(alone, together, strict=True):
            assert tuple(whole.size[index]) == mine.shape
            rows, columns = mine.shape
            assert np.abs(mine.values).max() > 1e-3
            np.testing.assert_allclose(
                whole.values[index : index + 1, :rows, :columns], mine.values, atol=1e-4, rtol=1e-4
            )
