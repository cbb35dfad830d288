"""AlexNet and GoogLeNet: where their maps lie, small images, images on a canvas, torchvision's form."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcn_jax.models.backbones.alexnet import AlexNet, local_response_norm
from fcn_jax.models.backbones.googlenet import GoogLeNet, Unit
from fcn_jax.models.fcn import FCN8s, alignment
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.weights.torchvision import read

NETS = {
    "alexnet": AlexNet(fc_features=8),
    "alexnet, reference": AlexNet(fc_features=8, padding="reference"),
    "googlenet": GoogLeNet(),
    "googlenet_bn": GoogLeNet(with_bn=True),
}


def drawn(model, x):
    """Random parameters and statistics that keep the size of activations."""
    generator = np.random.default_rng(0)

    def draw(path, shape):
        if path[-1].key in ("var", "scale"):
            return generator.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100
        return (generator.normal(size=shape.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), x))


@pytest.mark.parametrize(
    ("name", "reach", "offset"),
    # Half of the receptive field of a cell of the coarsest map: 355, 715 and 379 pixels wide.
    [("alexnet", 177, 12), ("googlenet", 357, 30), ("googlenet_bn", 189, 22)],
)
def test_cells_look_at_the_pixels_around_their_centres(name, reach, offset):
    """The outermost rows that a cell's field has reach it; the next ones do not."""
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
    variables = drawn(net, FeatureMap(jnp.asarray(canvas)))
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


def test_local_response_norm_is_its_formula():
    x = np.random.default_rng(0).normal(0, 30, (2, 3, 7)).astype(np.float32)
    expected = np.zeros_like(x)
    for channel in range(7):
        around = x[..., max(0, channel - 2) : channel + 3].astype(np.float64)
        expected[..., channel] = x[..., channel] / (1 + 1e-2 / 5 * (around**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x), alpha=1e-2), expected, rtol=1e-5)


def test_googlenet_bn_is_torchvisions(torchvision, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False).eval()
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in shapes.items():
        if name.endswith(("running_var", "bn.weight")):
            state[name] = generator.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.1
            state[name] = np.asarray(generator.normal(size=shape) * scale, np.float32)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})

    torch.save({**theirs.state_dict(), "aux1.fc1.weight": torch.zeros(1)}, tmp_path / "googlenet.pth")
    weights = read(tmp_path / "googlenet.pth")
    # Pixels in 0..255 as it takes them: ImageNet's normalisation, and then `transform_input`.
    normalised = (np.array([0.0, 128.0, 255.0]) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    theirs.transform_input = True
    taken = theirs._transform_input(torch.from_numpy(normalised.reshape(1, 3, 1, 1)))
    theirs.transform_input = False
    mean, std = np.array(weights.input.mean), np.array(weights.input.std)
    np.testing.assert_allclose((np.array([0.0, 128.0, 255.0]) - mean) / std, taken.ravel(), atol=1e-6)
    assert weights.origin == "googlenet.pth (PyTorch, GoogLeNet)"
    assert set(weights.unknown) == {"fc.weight", "fc.bias", "aux1.fc1.weight"}
    arrays = {path.replace("/backbone/", "/"): array for path, array in weights.arrays.items()}
    variables = traverse_util.unflatten_dict(arrays, sep="/")

    image = generator.normal(size=(2, 3, 83, 118)).astype(np.float32)
    seen = []
    for block in (theirs.inception3b, theirs.inception4e, theirs.inception5b):
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.numpy().transpose(0, 2, 3, 1)))
    with torch.no_grad():
        theirs(torch.from_numpy(image))
    net = NETS["googlenet_bn"]
    wanted = jax.eval_shape(net.init, jax.random.key(0), FeatureMap(jnp.zeros((1, 8, 8, 3))))
    assert jax.tree.structure(wanted) == jax.tree.structure(variables)
    maps = jax.jit(net.apply)(variables, FeatureMap(jnp.asarray(image.transpose(0, 2, 3, 1))))
    for mine, expected in zip(maps, seen, strict=True):
        assert mine.values.shape == expected.shape
        assert np.abs(mine.values - expected).max() < 1e-5 * np.abs(expected).max()


def test_training_drops_and_leaves_frozen_statistics():
    x = FeatureMap(jnp.asarray(np.random.default_rng(1).normal(size=(1, 33, 33, 3)).astype(np.float32)))
    net = GoogLeNet(with_bn=True, freeze_bn=True)
    variables = drawn(net, x)
    train = functools.partial(net.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    maps, updates = jax.jit(train)(variables, x)
    assert 0.3 < np.mean(maps[2].values == 0) < 0.95
    chex.assert_trees_all_equal(updates["batch_stats"], variables["batch_stats"])


def test_training_moves_statistics():
    x = FeatureMap(jnp.asarray(np.random.default_rng(1).normal(size=(2, 9, 9, 3)).astype(np.float32)))
    unit = Unit(4, 3, with_bn=True)
    variables = drawn(unit, x)
    _, updates = unit.apply(variables, x, train=True, mutable=["batch_stats"])
    before, after = (jax.tree.leaves(tree["batch_stats"]) for tree in (variables, updates))
    assert all(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))
