"""The FCN: sizes, alignment, images on a canvas, names, precision."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export
from random_variables import draw_images, draw_variables

import fcn_jax
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s, alignment
from fcn_jax.models.feature_map import FeatureMap

SMALL = {
    "vgg": VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=7),
    "resnet": ResNet(depths=(1, 1, 1, 1), width=8),
}
HEADS = {"fcn32s": FCN32s, "fcn16s": FCN16s, "fcn8s": FCN8s}


@functools.cache
def network(backbone: str, head: str = "fcn8s", upsampling: str = "learned"):
    """Make a small network, random variables for it, and its jitted forward pass."""
    model = HEADS[head](num_classes=4, backbone=SMALL[backbone], upsampling=upsampling)
    variables = draw_variables(model, jnp.zeros((1, 8, 8, 3)))
    return model, variables, jax.jit(model.apply)


@pytest.mark.parametrize("backbone", ["vgg", pytest.param("resnet", marks=pytest.mark.slow)])
def test_any_size_gives_logits_of_that_size(backbone):
    model, variables, _ = network(backbone)
    for height in (*range(1, 71, 6), 70):
        width = 71 - height
        logits = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32))
        assert logits.shape == (2, height, width, 4)
        assert logits.dtype == jnp.float32


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        pytest.param(backbone, head, marks=() if head == "fcn8s" else pytest.mark.slow)
        for backbone in SMALL
        for head in HEADS
    ],
)
def test_image_on_a_canvas_scores_as_alone(backbone, head):
    _model, variables, apply = network(backbone, head)
    canvas = np.array(draw_images(3, 80, 96))
    sizes = np.array([(1, 1), (33, 47), (2, 70)], np.int32)
    together = apply(variables, canvas, sizes)
    for index, (height, width) in enumerate(sizes):
        alone = apply(variables, canvas[index : index + 1, :height, :width])
        assert np.abs(alone).max() > 1e-3
        np.testing.assert_allclose(together[index : index + 1, :height, :width], alone, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backbone", SMALL)
def test_an_exported_network_takes_any_number_of_images(backbone):
    model, variables, apply = network(backbone)
    (count,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, 40, 56, 3), jnp.float32)
    exported = export.export(jax.jit(model.apply))(variables, images)
    images = draw_images(3, 40, 56)
    expected = apply(variables, images)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(exported.call(variables, images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", SMALL)
def test_an_exported_network_takes_images_of_any_size(backbone):
    """The canvas is a multiple of 32, and the images on it have any size."""
    model, variables, apply = network(backbone)
    images = jax.ShapeDtypeStruct(export.symbolic_shape("n, 32*h, 32*w, 3"), jnp.float32)
    size = jax.ShapeDtypeStruct((images.shape[0], 2), jnp.int32)
    exported = export.export(jax.jit(model.apply))(variables, images, size)
    images, size = draw_images(2, 64, 96), np.array([(64, 96), (33, 50)], np.int32)
    logits, expected = exported.call(variables, images, size), apply(variables, images, size)
    for got, want, (height, width) in zip(logits, expected, size, strict=True):
        np.testing.assert_allclose(got[:height, :width], want[:height, :width], atol=1e-4, rtol=1e-4)


def test_symbols_that_are_not_multiples_of_32_are_refused():
    model, variables, _ = network("resnet")
    images = jax.ShapeDtypeStruct(export.symbolic_shape("n, h, w, 3"), jnp.float32)
    with pytest.raises(ValueError, match=r"^symbolic heights and widths must be multiples of 32, such as 32 \* n"):
        jax.eval_shape(model.apply, variables, images)


def test_image_on_a_canvas_is_not_what_a_padded_one_gives():
    """Without sizes the border changes the scores, so the test above can fail."""
    _, variables, apply = network("resnet")
    canvas = np.array(draw_images(1, 64, 64))
    canvas[:, 40:] = 0
    alone = apply(variables, canvas[:, :40])
    assert np.abs(apply(variables, canvas)[:, :40] - alone).max() > 1e-2


class Ramp(nn.Module):
    """Backbone whose coarsest map holds the input row (channel 0) and column (1) of each cell's centre."""

    maps: tuple[FeatureMap, ...]
    centres: np.ndarray

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False):
        pool3, pool4, top = self.maps
        rows, columns = np.meshgrid(self.centres, self.centres, indexing="ij")
        ramp = jnp.asarray(np.stack([rows, columns], axis=-1)[None], jnp.float32)
        blank = [skip.replace(values=jnp.zeros((1, *skip.shape, 2))) for skip in (pool3, pool4)]
        return (*blank, top.replace(values=ramp))


def seen_rows(backbone: nn.Module, side: int, cells: tuple[int, ...]) -> list[np.ndarray]:
    """Find the rows of an image of one column that cells of the coarsest map depend on: a NaN there reaches them."""
    columns = np.ones((side, side, 1, 3), np.float32)
    columns[np.arange(side), np.arange(side)] = np.nan
    shapes = jax.eval_shape(backbone.init, jax.random.key(0), FeatureMap(jnp.ones((1, 8, 1, 3))))
    variables = jax.tree.map(lambda shape: jnp.ones(shape.shape), shapes)
    top = jax.jit(lambda x: backbone.apply(variables, FeatureMap(x))[2].values)(columns)
    return [np.flatnonzero(np.isnan(np.asarray(top[:, cell, 0, 0]))) for cell in cells]


@pytest.mark.parametrize("backbone", SMALL)
def test_output_pixels_lie_where_the_input_pixels_are(backbone):
    """The coordinate of a cell's centre, upsampled by the heads, comes to the pixel with that coordinate."""
    side = 320
    net = VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=3) if backbone == "vgg" else SMALL[backbone]
    first, last = (rows[[0, -1]].mean() for rows in seen_rows(net, side, (4, 5)))
    centres = first + (last - first) * (np.arange(side // 32) - 4)

    image = FeatureMap(jnp.zeros((1, side, side, 3)))
    maps = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), image)[0])
    assert maps[2].stride == last - first == 32
    np.testing.assert_array_equal(maps[2].offset + 32 * np.arange(side // 32), centres)

    for head in HEADS.values():
        for upsampling in ("learned", "fixed"):
            model = head(num_classes=2, backbone=Ramp(maps, centres), upsampling=upsampling)
            variables = jax.jit(model.init)(jax.random.key(0), image.values)
            params = {
                **variables.get("params", {}),
                "score_fr": {"kernel": jnp.eye(2)[None, None], "bias": jnp.zeros(2)},
            }
            logits = jax.jit(model.apply)({"params": params}, image.values)
            # Within a stride of the border there is nothing to interpolate with.
            inside = np.arange(64, side - 64)
            rows, columns = np.meshgrid(inside, inside, indexing="ij")
            np.testing.assert_allclose(
                logits[0, 64:-64, 64:-64], np.stack([rows, columns], axis=-1), atol=2e-3, err_msg=upsampling
            )


def test_vgg_and_resnet_lie_half_a_cell_apart():
    """The published geometry: VGG's kernels are 64/32, 4/2 and 16/8 with padding s/2, ResNet's 63/32, 3/2 and 15/8."""
    image = FeatureMap(jnp.zeros((1, 64, 96, 3)))
    expected = {
        "vgg": {32: (64, 32, 16), 16: (32, 16, 8), 8: (16, 8, 4)},
        "resnet": {32: (63, 32, 31), 16: (31, 16, 15), 8: (15, 8, 7)},
    }
    for name, net in SMALL.items():
        maps = jax.eval_shape(lambda net=net: net.init_with_output(jax.random.key(0), image)[0])
        for x in maps:
            kernel, factor, ((top, _), (left, _)) = alignment(x, image)
            assert (kernel, factor, top) == expected[name][x.stride]
            assert left == top
        kernel, factor, _ = alignment(maps[2], maps[1])
        assert (kernel, factor) == ((4, 2) if name == "vgg" else (3, 2))


def test_maps_that_cannot_be_aligned_are_refused():
    fine, coarse = FeatureMap(jnp.zeros((1, 8, 8, 1))), FeatureMap(jnp.zeros((1, 4, 4, 1)), stride=2, offset=0.25)
    with pytest.raises(ValueError, match=r"stride 2 and offset 0\.25 .* half or whole cells"):
        alignment(coarse, fine)
    with pytest.raises(ValueError, match="strides must divide"):
        alignment(coarse, fine.replace(stride=3))


def test_the_first_scores_are_zero_and_the_first_upsampling_bilinear():
    model = FCN8s(num_classes=4, backbone=SMALL["vgg"])
    logits, variables = jax.jit(model.init_with_output)(jax.random.key(0), draw_images(1, 40, 40))
    np.testing.assert_array_equal(logits, np.zeros((1, 40, 40, 4)))
    kernel = variables["params"]["upscore2"]["kernel"]
    tent = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(kernel[:, :, 1, 1], np.outer(tent, tent))
    assert np.count_nonzero(kernel[:, :, 0, 1]) == 0


def test_names_are_those_of_the_reference():
    heads = {name: network("vgg", name)[1]["params"] for name in HEADS}
    assert set(heads["fcn32s"]) == {"backbone", "score_fr", "upscore"}
    assert set(heads["fcn16s"]) == {"backbone", "score_fr", "score_pool4", "upscore2", "upscore16"}
    assert set(heads["fcn8s"]) - set(heads["fcn16s"]) == {"score_pool3", "upscore_pool4", "upscore8"}
    assert {"conv1_1", "conv5_1", "fc6", "fc7"} <= set(heads["fcn8s"]["backbone"])
    assert set(network("vgg", "fcn8s", "fixed")[1]["params"]) == {"backbone", "score_fr", "score_pool4", "score_pool3"}


def test_parameter_counts_are_the_published_ones():
    """134 M for FCN-32s on VGG16 with 21 classes (CVPR 2015, table 1); 21.3 M for ResNet34 without its classifier."""

    def count(model, part=lambda params: params):
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        return sum(leaf.size for leaf in jax.tree.leaves(part(shapes["params"])))

    assert round(count(FCN32s(num_classes=21, backbone="vgg16", upsampling="fixed")) / 1e6) == 134
    assert count(FCN8s(num_classes=21, backbone="resnet34"), lambda params: params["backbone"]) == 21_284_672


def test_at_once_scales_the_skips():
    model, variables, apply = network("resnet")
    scaled = model.clone(skip_scales=(0.01, 0.0001))
    x = draw_images(1, 40, 40)
    params = dict(variables["params"])
    for name, factor in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
        params[name] = {**params[name], "kernel": params[name]["kernel"] * factor}
    expected = apply({**variables, "params": params}, x)
    np.testing.assert_allclose(jax.jit(scaled.apply)(variables, x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", SMALL)
def test_bf16_computes_in_bf16_and_keeps_the_ends_in_float32(backbone):
    """Under standard promotion: Flax's BatchNorm mixes types on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        net = SMALL[backbone].clone(dtype=jnp.bfloat16)
        model = FCN8s(num_classes=4, backbone=net, dtype=jnp.bfloat16)
        _, variables, apply = network(backbone)
        fresh = jax.eval_shape(model.init, jax.random.key(0), draw_images(1, 40, 40))
        assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
        x = draw_images(1, 40, 56)
        features = jax.eval_shape(nn.apply(lambda m, x: m(x), net), variables_of(variables, "backbone"), FeatureMap(x))
        assert {m.values.dtype for m in features} == {jnp.dtype("bfloat16")}
        logits = jax.jit(model.apply)(variables, x)
        assert logits.dtype == jnp.float32
        exact = apply(variables, x)
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.05


def variables_of(variables, name):
    return {collection: tree[name] for collection, tree in variables.items() if name in tree}


def test_train_mode_updates_statistics_and_drops():
    model, variables, _ = network("resnet")
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    _, updates = train(variables, draw_images(2, 40, 40))
    before, after = jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updates["batch_stats"])
    assert all(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))

    model, variables, _ = network("vgg")
    train = jax.jit(functools.partial(model.apply, train=True))
    x = draw_images(1, 40, 40)
    first, second = (train(variables, x, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_public_names():
    assert fcn_jax.FCN8s(num_classes=2).stride == 8
    assert fcn_jax.FCN32s(num_classes=2).stride == 32
    assert issubclass(fcn_jax.FCN, nn.Module)
    with pytest.raises(AttributeError, match=r"FCN4s.*FCN8s"):
        _ = fcn_jax.FCN4s


def test_one_program_for_all_sizes_on_a_canvas():
    model, variables, _ = network("resnet")
    traced = jax.jit(chex.assert_max_traces(lambda *arguments: model.apply(*arguments), n=1))
    for size in ([5, 6], [40, 40], [1, 1]):
        assert np.isfinite(traced(variables, draw_images(1, 40, 40), np.array([size], np.int32))).all()


def test_score_layers_may_be_those_of_flax():
    model, variables, apply = network("vgg")
    x = draw_images(1, 40, 40)
    theirs = model.clone(conv=nn.Conv)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    np.testing.assert_allclose(jax.jit(theirs.apply)(variables, x), apply(variables, x), atol=1e-4, rtol=1e-4)


def test_fcns_have_no_auxiliary_scores():
    assert not FCN(3).has_auxiliary_scores
