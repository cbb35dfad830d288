"""GoogLeNet: torchvision's form, and training."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from random_variables import draw_variables

from fcn_jax.models.backbones.googlenet import GoogLeNet, Unit
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.weights.torchvision import read


@pytest.mark.peers
def test_maps_are_those_of_torchvision(torchvision, tmp_path):
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
    net = GoogLeNet(with_bn=True, padding="reference")
    wanted = jax.eval_shape(net.init, jax.random.key(0), FeatureMap(jnp.zeros((1, 8, 8, 3))))
    assert jax.tree.structure(wanted) == jax.tree.structure(variables)
    maps = jax.jit(net.apply)(variables, FeatureMap(jnp.asarray(image.transpose(0, 2, 3, 1))))
    for mine, expected in zip(maps, seen, strict=True):
        assert mine.values.shape == expected.shape
        assert np.abs(mine.values - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_training_drops_and_leaves_frozen_statistics():
    x = FeatureMap(jnp.asarray(np.random.default_rng(1).normal(size=(1, 33, 33, 3)).astype(np.float32)))
    net = GoogLeNet(with_bn=True, freeze_bn=True)
    variables = draw_variables(net, x, fan_in_of_vectors=100)
    train = functools.partial(net.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    maps, updates = jax.jit(train)(variables, x)
    assert 0.3 < np.mean(maps[2].values == 0) < 0.95
    chex.assert_trees_all_equal(updates["batch_stats"], variables["batch_stats"])


def test_training_moves_statistics():
    x = FeatureMap(jnp.asarray(np.random.default_rng(1).normal(size=(2, 9, 9, 3)).astype(np.float32)))
    unit = Unit(4, 3, with_bn=True)
    variables = draw_variables(unit, x, fan_in_of_vectors=100)
    _, updates = unit.apply(variables, x, train=True, mutable=["batch_stats"])
    before, after = (jax.tree.leaves(tree["batch_stats"]) for tree in (variables, updates))
    assert all(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))
