"""Where the maps of backbones lie: centres, receptive fields, small images, images on a canvas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_variables

from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN8s, alignment
from fcn_jax.models.feature_map import FeatureMap

NETS = {
    "alexnet": AlexNet(fc_features=8),
    "alexnet, reference": AlexNet(fc_features=8, padding="reference"),
    "googlenet": GoogLeNet(),
    "googlenet, reference": GoogLeNet(padding="reference"),
    "googlenet_bn": GoogLeNet(with_bn=True),
    "googlenet_bn, reference": GoogLeNet(with_bn=True, padding="reference"),
    # Plain convolutions: those of `Conv` may compute a few cells at once, so that a NaN spreads to all of them.
    "vgg16": VGG(fc_features=8, conv=nn.Conv),
    "vgg16, reference": VGG(fc_features=8, conv=nn.Conv, padding="reference"),
    "vgg19_bn": VGG(depths=(2, 2, 4, 4, 4), fc_features=8, conv=nn.Conv, with_bn=True),
    "resnet18": ResNet(depths=(2, 2, 2, 2), width=1, conv=nn.Conv),
    "resnet34": ResNet(width=1, conv=nn.Conv),
    "resnet34, dilated": ResNet(width=1, conv=nn.Conv, output_stride=8),
    "resnet50": ResNet(width=1, conv=nn.Conv, block=Bottleneck),
    "resnet50, dilated": ResNet(width=1, conv=nn.Conv, block=Bottleneck, output_stride=8),
    "resnet101": ResNet(depths=(3, 4, 23, 3), width=1, conv=nn.Conv, block=Bottleneck),
    "resnet152": ResNet(depths=(3, 8, 36, 3), width=1, conv=nn.Conv, block=Bottleneck),
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "width", "offset"),
    # Pixels across the receptive field of a cell of the coarsest map.
    [
        ("alexnet", 355, 12),
        pytest.param("googlenet", 715, 0, marks=SLOW),
        pytest.param("googlenet, reference", 715, 30, marks=SLOW),
        pytest.param("googlenet_bn", 379, 8, marks=SLOW),
        pytest.param("googlenet_bn, reference", 379, 22, marks=SLOW),
        ("vgg16", 404, 15.5),
        pytest.param("vgg16, reference", 404, 12.5, marks=SLOW),
        pytest.param("vgg19_bn", 460, 15.5, marks=SLOW),
        ("resnet18", 435, 0),
        pytest.param("resnet34", 899, 0, marks=SLOW),
        pytest.param("resnet34, dilated", 899, 0, marks=SLOW),
        pytest.param("resnet50", 427, 0, marks=SLOW),
        pytest.param("resnet50, dilated", 427, 0, marks=SLOW),
        pytest.param("resnet101", 971, 0, marks=SLOW),
        pytest.param("resnet152", 1451, 0, marks=SLOW),
    ],
)
def test_receptive_fields_lie_around_the_centres(name, width, offset):
    """A NaN in the outermost rows of a cell's receptive field reaches it; a NaN in the next rows does not."""
    net = NETS[name]
    stride, reach = 8 if "dilated" in name else 32, (width - 1) / 2
    cell = 32 * 24 // stride
    centre = offset + stride * cell
    rows = [int(centre + row) for row in (-reach, -reach - 1, reach, reach + 1)]
    images = np.ones((4, rows[-1] + 33, 1, 3), np.float32)
    images[np.arange(4), rows] = np.nan
    shapes = jax.eval_shape(net.init, jax.random.key(0), FeatureMap(jnp.ones((1, 8, 1, 3))))
    variables = jax.tree.map(lambda shape: jnp.full(shape.shape, 0.01), shapes)
    top = jax.jit(net.apply)(variables, FeatureMap(jnp.asarray(images)))[2]
    assert (top.stride, top.offset, top.reach, top.coarsest) == (stride, offset, reach, stride)
    assert np.isnan(top.values[:, cell, 0]).any(axis=-1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("name", ["alexnet", "alexnet, reference", pytest.param("googlenet", marks=SLOW)])
def test_any_size_gives_logits_of_that_size(name):
    model = FCN8s(num_classes=4, backbone=NETS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    for height in (1, 2, 17, 67):
        images = jax.ShapeDtypeStruct((2, height, 68 - height, 3), jnp.float32)
        assert jax.eval_shape(model.apply, shapes, images).shape == (2, height, 68 - height, 4)


def test_kernels_and_crops_follow_from_the_maps():
    image = FeatureMap(jnp.zeros((1, 227, 227, 3)))
    expected = {"alexnet": (3, 63, 19), "alexnet, reference": (3, 63, 18)}
    expected |= {"googlenet": (3, 63, 31), "googlenet_bn, reference": (4, 63, 9)}  # the last pooling of this one is 2x2
    for name, (inner, outer, crop) in expected.items():
        maps = jax.eval_shape(lambda net=NETS[name]: net.init_with_output(jax.random.key(0), image)[0])
        assert [m.stride for m in maps] == [8, 16, 32]
        assert alignment(maps[2], maps[1])[0] == inner
        kernel, factor, ((top, _), _) = alignment(maps[2], image)
        assert (kernel, factor, top) == (outer, 32, crop)


@pytest.mark.parametrize(
    "name", ["alexnet", *(pytest.param(name, marks=SLOW) for name in ("alexnet, reference", "googlenet"))]
)
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
