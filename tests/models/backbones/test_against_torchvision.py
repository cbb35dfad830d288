"""VGG, ResNet and the dilated FCN against torchvision, with random weights and statistics, read from its files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.weights.torchvision import read

pytestmark = pytest.mark.peers

OURS = [name for name in BACKBONES if name.startswith(("vgg", "resnet"))]
SIZES = [(33, 47), (64, 64), (97, 65)]
FC_FEATURES = 64  # of fc6 and fc7, which would be nine tenths of VGG's weights


def make_theirs(torchvision, name: str, **options):
    """Make a network of torchvision with random weights, in eval mode."""
    import torch

    models = torchvision.models.segmentation if name.startswith("fcn") else torchvision.models
    with torch.device("meta"):  # saves the time to draw initial weights
        net = getattr(models, name)(weights=None, **options)
        if name.startswith("vgg"):
            net.classifier[0] = torch.nn.Linear(512 * 49, FC_FEATURES)
            net.classifier[3] = torch.nn.Linear(FC_FEATURES, FC_FEATURES)
            net.classifier[6] = torch.nn.Linear(FC_FEATURES, 10)
    net = net.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_uniform_(layer.weight)
            if layer.bias is not None:
                layer.bias.data.normal_(std=0.1)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
        if isinstance(layer, torch.nn.MaxPool2d):
            layer.ceil_mode = name.startswith("vgg")  # pooling rounds up here, as in the reference
    return net.eval()


def carry_over(net, folder) -> dict:
    """Convert a network's variables through a file."""
    import torch

    torch.save(net.state_dict(), folder / "weights.pth")
    return nest(read(folder / "weights.pth").arrays)


def nest(arrays: dict) -> dict:
    return traverse_util.unflatten_dict(arrays, sep="/")


def backbone_part(variables: dict) -> dict:
    return {collection: tree["backbone"] for collection, tree in variables.items()}


def their_maps(net, images) -> list:
    """Compute the maps that our backbones return, with torchvision's layers."""
    import torch

    x, maps = images, []
    if hasattr(net, "features"):
        for layer in net.features:
            x = layer(x)
            maps += [x] if isinstance(layer, torch.nn.MaxPool2d) else []
        fc6, _, _, fc7, _, _, _ = net.classifier
        kernel = fc6.weight.reshape(len(fc6.weight), -1, 7, 7)
        x = torch.nn.functional.conv2d(x, kernel, fc6.bias, padding=3).relu()
        return [*maps[2:4], torch.nn.functional.conv2d(x, fc7.weight[:, :, None, None], fc7.bias).relu()]
    for name, layer in net.named_children():
        if name == "avgpool":
            return maps[1:]
        x = layer(x)
        maps += [x] if name.startswith("layer") else []
    raise AssertionError("a ResNet ends with avgpool and fc")


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)


def to_torch(images: np.ndarray):
    import torch

    return torch.tensor(images.transpose(0, 3, 1, 2))


def assert_close(got, want, tolerance: float = 1e-4) -> None:
    want = want.detach().numpy().transpose(0, 2, 3, 1)
    assert got.shape == want.shape
    assert np.abs(want).max() > 1e-2
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def compare(net, backbone, variables, size: tuple[int, int]) -> None:
    import torch

    images = random_images(2, *size)
    # Without `jit` the operations that the networks share are compiled once for all.
    got = backbone.apply(variables, FeatureMap(jnp.asarray(images)))
    with torch.no_grad():
        want = their_maps(net, to_torch(images))
    for ours, their in zip(got, want, strict=True):
        assert_close(ours.values, their)


def make_ours(name: str, **options):
    return BACKBONES[name](**({"fc_features": FC_FEATURES} if name.startswith("vgg") else {}), **options)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((name, SIZES if name in ("vgg16", "resnet18") else SIZES[:1]) for name in OURS),
        *(pytest.param(name, SIZES[1:], marks=pytest.mark.slow) for name in OURS),
    ],
)
def test_features_are_those_of_torchvision(torchvision, tmp_path, name, sizes):
    net = make_theirs(torchvision, name)
    variables = backbone_part(carry_over(net, tmp_path))
    for size in sizes:
        compare(net, make_ours(name), variables, size)


# `fcn_resnet50` below covers stride 8.
@pytest.mark.parametrize("output_stride", [16, pytest.param(8, marks=pytest.mark.slow)])
def test_dilated_features_are_those_of_torchvision(torchvision, tmp_path, output_stride):
    net = make_theirs(torchvision, "resnet50", replace_stride_with_dilation=[False, output_stride == 8, True])
    variables = backbone_part(carry_over(net, tmp_path))
    compare(net, make_ours("resnet50", output_stride=output_stride), variables, SIZES[0])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet50", SIZES[:1]),
        ("resnet101", SIZES[2:]),
        pytest.param("resnet50", SIZES[1:], marks=pytest.mark.slow),
        pytest.param("resnet101", SIZES[:2], marks=pytest.mark.slow),
    ],
)
def test_both_logits_of_the_dilated_fcn_are_those_of_torchvision(torchvision, tmp_path, name, sizes):
    import torch

    net = make_theirs(torchvision, f"fcn_{name}", weights_backbone=None, aux_loss=True, num_classes=21)
    variables = carry_over(net, tmp_path)
    model = DilatedFCN(num_classes=21, backbone=name)
    for size in sizes:
        images = random_images(2, *size)
        with torch.no_grad():
            want = net(to_torch(images))
        main, aux = model.apply(variables, images, return_aux=True)
        assert_close(main, want["out"])
        assert_close(aux, want["aux"])


@pytest.mark.parametrize(("name", "options"), [("vgg16", {"dropout": 0.0}), ("resnet34", {})])
def test_gradients_in_training_are_those_of_torchvision(torchvision, tmp_path, name, options):
    """With random weights on all maps, and with BatchNorm that uses the statistics of the batch.

    In float64, because in float32 rounding takes some activations across the kink of a ReLU, which changes gradients.
    """
    import torch

    net = make_theirs(torchvision, name).train().double()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    images = random_images(4, 33, 33).astype(np.float64)
    maps = their_maps(net, to_torch(images))
    generator = np.random.default_rng(2)
    directions = [generator.normal(size=x.shape) for x in maps]
    loss = sum((x * torch.tensor(d)).sum() for x, d in zip(maps, directions, strict=True))
    loss.backward()
    variables = backbone_part(carry_over(net, tmp_path))
    # Gradients are converted as the weights are, so that each has the name and the layout of its parameter.
    for parameter in net.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    want = traverse_util.flatten_dict(backbone_part(carry_over(net, tmp_path))["params"])

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        backbone = make_ours(name, dtype=jnp.float64, **options)
        variables = jax.tree.map(lambda values: jnp.asarray(values, jnp.float64), variables)

        def our_loss(params):
            x = FeatureMap(jnp.asarray(images))
            maps, _ = backbone.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return sum((x.values * d.transpose(0, 2, 3, 1)).sum() for x, d in zip(maps, directions, strict=True))

        value, got = jax.jit(jax.value_and_grad(our_loss))(variables["params"])
    # Weights and gradients were float32 in the file.
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for path, gradient in traverse_util.flatten_dict(got).items():
        assert np.linalg.norm(want[path]) > 0, path
        assert np.linalg.norm(np.asarray(gradient) - want[path]) <= 1e-5 * np.linalg.norm(want[path]), path


@pytest.mark.slow
def test_fc7_is_the_classifier_s_where_its_window_fits(torchvision, tmp_path):
    """At 224x224 the middle cell of fc6 and fc7 has the inputs of the dense layers."""
    import torch

    net = make_theirs(torchvision, "vgg16")
    images = random_images(1, 224, 224)
    with torch.no_grad():
        want = net.classifier[:6](net.features(to_torch(images)).flatten(1)).numpy()
    got = make_ours("vgg16").apply(backbone_part(carry_over(net, tmp_path)), FeatureMap(jnp.asarray(images)))[2].values
    np.testing.assert_allclose(got[:, 3, 3], want, atol=1e-4 * np.abs(want).max(), rtol=1e-4)
