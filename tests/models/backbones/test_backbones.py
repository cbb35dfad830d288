"""What all backbones have: parameter counts, images on a canvas, frozen norms, layers that can be replaced."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_images, draw_variables

from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet, Inception
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN8s
from fcn_jax.models.feature_map import FeatureMap

# Counts of torchvision (`num_params` of its weights) without the classifier: for ResNets a dense layer from the last
# map to 1000 classes, for VGG the last of the dense layers.
PARAMETERS = {
    "vgg16": 138_357_544 - 4_097_000,
    "vgg16_bn": 138_365_992 - 4_097_000,
    "vgg19": 143_667_240 - 4_097_000,
    "vgg19_bn": 143_678_248 - 4_097_000,
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
}
SMALL = {
    "basic": ResNet(depths=(1, 1, 2, 2), width=8),
    "bottleneck": ResNet(depths=(1, 1, 2, 2), width=4, block=Bottleneck),
    "vgg_bn": VGG(depths=(1, 1, 1, 1, 1), fc_features=8, with_bn=True, dropout=0.0),
}


def draw_map(*shape: int) -> FeatureMap:
    return FeatureMap(jnp.asarray(draw_images(*shape)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_torchvision(name):
    shapes = jax.eval_shape(BACKBONES[name]().init, jax.random.key(0), draw_map(1, 8, 8))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == PARAMETERS[name]


NETS = {"dilated": SMALL["bottleneck"].clone(output_stride=8), "vgg_bn": SMALL["vgg_bn"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_image_on_a_canvas_scores_as_alone(name):
    model = FCN8s(num_classes=4, backbone=NETS[name])
    canvas = draw_images(2, 64, 72)
    variables = draw_variables(model, canvas)
    apply = jax.jit(model.apply)
    sizes = np.array([(1, 1), (33, 47)], np.int32)
    together = apply(variables, canvas, sizes)
    for index, (height, width) in enumerate(sizes):
        alone = apply(variables, canvas[index : index + 1, :height, :width])
        assert np.abs(alone).max() > 1e-3
        np.testing.assert_allclose(together[index : index + 1, :height, :width], alone, atol=1e-4, rtol=1e-4)
    # Without sizes the border changes the scores.
    assert np.abs(apply(variables, canvas)[1, :33, :47] - together[1, :33, :47]).max() > 1e-2


@pytest.mark.parametrize("name", SMALL)
def test_frozen_norms_use_and_keep_their_statistics(name):
    free, x = SMALL[name], draw_map(2, 33, 33)
    frozen = free.clone(freeze_bn=True)
    variables = draw_variables(frozen, x)
    maps, updates = jax.jit(partial(frozen.apply, train=True, mutable=["batch_stats"]))(variables, x)
    for got, want in zip(maps, jax.jit(free.apply)(variables, x), strict=True):
        np.testing.assert_allclose(got.values, want.values, atol=1e-4 * np.abs(want.values).max(), rtol=1e-4)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, updates["batch_stats"], variables["batch_stats"])))


REPLACEABLE = {
    **SMALL,
    "alexnet": AlexNet(fc_features=8, dropout=0.0),
    "inception": Inception((8, 4, 8, 4, 8, 8)),
    "inception_bn": Inception((8, 4, 8, 4, 8, 8), with_bn=True),
}


@pytest.mark.parametrize("name", REPLACEABLE)
def test_layers_of_flax_give_the_same(name):
    """Conv and BatchNorm replaced: the same variables, results and updated statistics."""
    ours, x = REPLACEABLE[name], draw_map(2, 70, 66)
    theirs = ours.clone(conv=nn.Conv, **({} if name == "alexnet" else {"norm": nn.BatchNorm}))
    variables = draw_variables(ours, x, fan_in_of_vectors=50)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)

    def train(net):
        return jax.jit(partial(net.apply, train=True, mutable=["batch_stats"]))(variables, x)

    for got, want in zip(*(jax.tree.leaves(train(net)) for net in (theirs, ours)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=1e-4)


@pytest.mark.parametrize(
    "net",
    [*SMALL.values(), AlexNet(fc_features=8), GoogLeNet(), GoogLeNet(with_bn=True)],
    ids=lambda net: type(net).__name__,
)
def test_every_layer_is_replaced(net):
    """As many layers are made by the given classes as there are kernels and scales."""
    asked = {"conv": 0, "norm": 0}

    def count(kind, layer, *arguments, **options):
        asked[kind] += 1
        return layer(*arguments, **options)

    counted = {"conv": partial(count, "conv", nn.Conv)}
    if not isinstance(net, AlexNet):
        counted["norm"] = partial(count, "norm", nn.BatchNorm)
    shapes = jax.eval_shape(net.clone(**counted).init, jax.random.key(0), draw_map(1, 8, 8))
    paths = [path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])]
    assert (asked["conv"], asked["norm"]) == (paths.count("kernel"), paths.count("scale"))
