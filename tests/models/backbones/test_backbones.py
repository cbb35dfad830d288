"""What the backbones share beyond torchvision's features: sizes, dilation, frozen norms, exactness on a canvas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.layers.batch_norm import batch_norm
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN8s, FCN32s
from fcn_jax.models.feature_map import FeatureMap

# Of torchvision's models (`num_params` of its weights) without their classifiers: for ResNets 1001 or 1000 times the
# channels of the last map, for VGG the last of the dense layers.
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


def random_variables(model, *arguments) -> dict:
    """Every parameter and statistic random."""
    generator = np.random.default_rng(0)

    def draw(path, shape):
        if path[-1].key in ("var", "scale"):
            return generator.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 1
        return (generator.normal(size=shape.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), *arguments))


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)


def image(*shape: int) -> FeatureMap:
    return FeatureMap(jnp.asarray(random_images(*shape)))


def parameters(model, *arguments) -> int:
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_torchvision_s(name):
    assert parameters(BACKBONES[name](), image(1, 8, 8)) == PARAMETERS[name]


def test_the_paper_s_network_has_its_parameters():
    """134 M (CVPR 2015, table 1): VGG16 without its last layer and a score layer of 21 classes."""
    count = parameters(FCN32s(21, "vgg16", upsampling="fixed"), random_images(1, 8, 8))
    assert count == PARAMETERS["vgg16"] + 21 * 4097
    assert round(count / 1e6) == 134


@pytest.mark.parametrize(("name", "output_stride"), [("basic", 8), ("bottleneck", 16)])
def test_dilation_gives_the_undilated_cells_and_those_between(name, output_stride):
    """Chen et al. 2015: a stride left out and all that follows dilated; every second or fourth cell is as before."""
    plain, x = SMALL[name], image(2, 75, 97)
    dilated = plain.clone(output_stride=output_stride)
    variables = random_variables(plain, x)
    shapes = jax.eval_shape(dilated.init, jax.random.key(0), x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    want, got = (jax.jit(model.apply)(variables, x) for model in (plain, dilated))
    for few, many, stride in zip(want, got, (8, 16, 32), strict=True):
        assert (few.stride, many.stride, many.offset) == (stride, min(stride, output_stride), 0)
        step = few.stride // many.stride
        cells = many.values[:, ::step, ::step]
        assert many.shape == tuple(-(-n // many.stride) for n in x.shape)
        np.testing.assert_allclose(cells, few.values, atol=1e-4 * np.abs(few.values).max(), rtol=1e-5)


def test_another_output_stride_is_refused():
    with pytest.raises(ValueError, match="output_stride is 4; it must be one of 8, 16, 32"):
        ResNet(output_stride=4).init(jax.random.key(0), image(1, 8, 8))


NETS = {"dilated": SMALL["bottleneck"].clone(output_stride=8), "vgg_bn": SMALL["vgg_bn"]}


@pytest.mark.parametrize("name", NETS)
def test_image_on_a_canvas_scores_as_alone(name):
    model = FCN8s(num_classes=4, backbone=NETS[name])
    canvas = random_images(2, 64, 72)
    variables = random_variables(model, canvas)
    apply = jax.jit(model.apply)
    sizes = np.array([(1, 1), (33, 47)], np.int32)
    together = apply(variables, canvas, sizes)
    for index, (height, width) in enumerate(sizes):
        alone = apply(variables, canvas[index : index + 1, :height, :width])
        assert np.abs(alone).max() > 1e-3
        np.testing.assert_allclose(together[index : index + 1, :height, :width], alone, atol=1e-4, rtol=1e-4)
    # Where the sizes are not told, the border leaks in.
    assert np.abs(apply(variables, canvas)[1, :33, :47] - together[1, :33, :47]).max() > 1e-2


def test_maps_of_one_grid_are_added_as_they_are():
    """FCN on a backbone dilated to stride 8: nothing to upsample between its maps, then by 8."""
    model = FCN8s(num_classes=4, backbone=NETS["dilated"])
    x = random_images(1, 40, 56)
    variables = random_variables(model, x)
    assert set(variables["params"]) == {"backbone", "score_fr", "score_pool4", "score_pool3", "upscore8"}
    assert variables["params"]["upscore8"]["kernel"].shape == (15, 15, 4, 4)
    maps = jax.jit(NETS["dilated"].apply)({c: tree["backbone"] for c, tree in variables.items()}, image(1, 40, 56))
    params = variables["params"]
    total = sum(
        m.values @ params[name]["kernel"][0, 0] + params[name]["bias"].reshape(1, 1, 1, -1)
        for m, name in zip(maps, ("score_pool3", "score_pool4", "score_fr"), strict=True)
    )
    # Where a cell lies, the odd kernel's middle is the only tap.
    eye = {**params, "upscore8": {"kernel": np.zeros((15, 15, 4, 4), np.float32)}}
    eye["upscore8"]["kernel"][7, 7] = np.eye(4)
    logits = jax.jit(model.apply)({**variables, "params": eye}, x)
    np.testing.assert_allclose(logits[:, ::8, ::8], total, atol=1e-4 * np.abs(total).max(), rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_frozen_norms_use_and_keep_their_statistics(name):
    free, x = SMALL[name], image(2, 33, 33)
    frozen = free.clone(freeze_bn=True)
    variables = random_variables(frozen, x)
    maps, updates = jax.jit(partial(frozen.apply, train=True, mutable=["batch_stats"]))(variables, x)
    for got, want in zip(maps, jax.jit(free.apply)(variables, x), strict=True):
        np.testing.assert_allclose(got.values, want.values, atol=1e-4 * np.abs(want.values).max(), rtol=1e-4)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, updates["batch_stats"], variables["batch_stats"])))


def test_scale_and_bias_of_frozen_norms_are_learned():
    x = random_images(2, 4, 4)
    norm = batch_norm(False, jnp.float32)()
    variables = random_variables(norm, x)
    gradient = jax.grad(lambda params: (norm.apply({**variables, "params": params}, x) ** 2).sum())
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(gradient(variables["params"])))
