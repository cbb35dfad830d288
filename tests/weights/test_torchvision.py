"""Networks of torchvision and timm: their names and layouts, and networks that are not known."""

import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.weights.torchvision import read
from fcn_jax.weights.weights import Weights

State = dict[str, np.ndarray]


def read_state(folder, state: State) -> Weights:
    safetensors.numpy.save_file(state, folder / "x.safetensors")
    return read(folder / "x.safetensors")


def draw(name: str, *shape: int) -> np.ndarray:
    """Random numbers that are others for each name."""
    return np.random.default_rng(list(name.encode())).normal(size=shape).astype(np.float32)


def conv(ins: int, outs: int, side: int, name: str, bias: bool = False) -> State:
    weights = {f"{name}.weight": draw(name, outs, ins, side, side)}
    return weights | ({f"{name}.bias": draw(f"{name}.bias", outs)} if bias else {})


def norm(features: int, name: str) -> State:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": draw(f"{name}.{kind}", features) for kind in kinds} | {
        f"{name}.num_batches_tracked": np.array(9)
    }


def small_resnet() -> State:
    return {
        **conv(3, 4, 7, "conv1"),
        **norm(4, "bn1"),
        **conv(4, 8, 1, "layer2.0.conv1"),
        **norm(8, "layer2.0.bn1"),
        **conv(4, 8, 1, "layer2.0.downsample.0"),
        **norm(8, "layer2.0.downsample.1"),
        **conv(8, 8, 3, "layer2.11.conv2"),
        "fc.weight": np.zeros((10, 8), np.float32),
        "fc.bias": np.zeros(10, np.float32),
    }


def test_a_resnet_s_names_and_layouts(tmp_path):
    norms = ("bn1", "layer2_0/bn1", "layer2_0/downsample_bn")
    state = small_resnet()
    weights = read_state(tmp_path, state)
    assert set(weights.arrays) == {
        "params/backbone/conv1/kernel",
        *(f"params/backbone/{norm}/{leaf}" for norm in norms for leaf in ("scale", "bias")),
        *(f"batch_stats/backbone/{norm}/{leaf}" for norm in norms for leaf in ("mean", "var")),
        "params/backbone/layer2_0/conv1/kernel",
        "params/backbone/layer2_0/downsample_conv/kernel",
        "params/backbone/layer2_11/conv2/kernel",
    }
    kernel, weight = weights.arrays["params/backbone/layer2_11/conv2/kernel"], state["layer2.11.conv2.weight"]
    assert kernel.shape == (3, 3, 8, 8)
    assert kernel[0, 2, 5, 7] == weight[7, 5, 0, 2]
    statistics = {leaf: weights.arrays[f"batch_stats/backbone/layer2_0/bn1/{leaf}"] for leaf in ("mean", "var")}
    np.testing.assert_array_equal(statistics["mean"], state["layer2.0.bn1.running_mean"])
    np.testing.assert_array_equal(statistics["var"], state["layer2.0.bn1.running_var"])
    np.testing.assert_array_equal(
        weights.arrays["params/backbone/layer2_0/downsample_bn/scale"], state["layer2.0.downsample.1.weight"]
    )
    # The head of the classifier is listed; the counts of batches are not, as no network here uses them.
    assert set(weights.unknown) == {"fc.weight", "fc.bias"}
    assert weights.input == InputConfig()
    assert weights.origin.startswith("x.safetensors (PyTorch, ResNet")


def behind(prefix: str, state: State) -> State:
    return {prefix + name: array for name, array in state.items()}


PREFIXES = (
    "module.",  # DataParallel
    "_orig_mod.module.",  # and torch.compile
    "model.",  # Lightning
    "module.model.encoder.",  # segmentation_models.pytorch
    "backbone.",  # OpenMMLab
    "backbone.body.",  # torchvision's detectors
    "model.backbone.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["resnet", "vgg"])
def test_prefixes_are_left_out_and_told(tmp_path, prefix, kind):
    state = small_resnet() if kind == "resnet" else small_vgg(True)
    others = {"decoder.blocks.0.conv1.0.weight": draw("x", 2, 2, 3, 3), "model.steps": np.zeros(1, np.float32)}
    plain = read_state(tmp_path, state)
    wrapped = read_state(tmp_path, behind(prefix, state) | others)
    assert plain.arrays.keys() == wrapped.arrays.keys()
    for name, value in plain.arrays.items():
        np.testing.assert_array_equal(wrapped.arrays[name], value)
    assert set(wrapped.unknown) == {*(prefix + name for name in plain.unknown), *others}
    assert wrapped.origin == plain.origin.removesuffix(")") + f"; prefix {prefix!r} left out)"


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
def test_the_prefix_of_an_fcn_is_what_its_heads_have_too(tmp_path, prefix):
    heads = {**conv(8, 2, 3, "classifier.0"), **norm(2, "classifier.1"), **conv(2, 3, 1, "classifier.4", bias=True)}
    weights = read_state(tmp_path, behind(prefix, behind("backbone.", small_resnet()) | heads))
    assert {path.split("/")[1] for path in weights.arrays} == {"backbone", "classifier"}
    assert len(weights.unknown) == 2
    assert ("prefix" in weights.origin) == bool(prefix)
    assert f"prefix {prefix!r} left out" in weights.origin or not prefix


@pytest.mark.parametrize("prefixes", [("module.encoder_q.", "module.encoder_k."), ("", "ema.")])
def test_two_networks_are_refused(tmp_path, prefixes):
    """As MoCo saves them: the network and its average."""
    state = behind(prefixes[0], small_resnet()) | behind(prefixes[1], small_resnet())
    with pytest.raises(InputError, match=r"two networks, .*; save one of them alone") as refused:
        read_state(tmp_path, state)
    assert all(f" with {prefix!r}" in str(refused.value) for prefix in prefixes)


def test_two_tensors_for_one_place_are_refused(tmp_path):
    state = conv(3, 4, 7, "conv1") | conv(3, 4, 7, "backbone.conv1")
    with pytest.raises(InputError, match="two tensors for params/backbone/conv1/kernel"):
        read_state(tmp_path, state)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_all_becomes_float32(tmp_path, dtype):
    state = {name: tensor.astype(dtype) for name, tensor in small_resnet().items()}
    arrays = read_state(tmp_path, state).arrays
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    expected = state["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays["params/backbone/conv1/kernel"], expected)


TORCHVISION_DENSE = ("classifier.0", "classifier.3", "classifier.6")


def small_vgg(with_bn: bool, dense: tuple[str, str, str] = TORCHVISION_DENSE) -> State:
    """VGG11 of few channels as torchvision numbers it: a pooling behind layers 1, 2, 4, 6 and 8."""
    state, place, ins = {}, 0, 3
    for depth in (1, 1, 2, 2, 2):
        for _ in range(depth):
            state |= conv(ins, 4, 3, f"features.{place}", bias=True)
            ins = 4
            if with_bn:
                state |= norm(4, f"features.{place + 1}")
            place += 3 if with_bn else 2
        place += 1
    for name, original, ins, outs in zip(dense, TORCHVISION_DENSE, (4 * 49, 6, 6), (6, 6, 10), strict=True):
        state |= {f"{name}.weight": draw(original, outs, ins), f"{name}.bias": np.zeros(outs, np.float32)}
    return state


@pytest.mark.parametrize("with_bn", [False, True])
def test_a_vgg_s_layers_are_told_apart_by_their_numbers(tmp_path, with_bn):
    state = small_vgg(with_bn)
    weights = read_state(tmp_path, state)
    layers = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    convs = [f"params/backbone/{name}/kernel" for name in [*(f"conv{layer}" for layer in layers), "fc6", "fc7"]]
    norms = [f"batch_stats/backbone/bn{layer}/mean" for layer in layers] if with_bn else []
    assert sorted(path for path in weights.arrays if path.endswith("kernel")) == convs
    assert sorted(path for path in weights.arrays if path.endswith("mean")) == norms
    numbers = [0, 4, 8, 11, 15, 18, 22, 25] if with_bn else [0, 3, 6, 8, 11, 13, 16, 18]
    for number, path in zip(numbers, convs, strict=False):
        np.testing.assert_array_equal(weights.arrays[path], state[f"features.{number}.weight"].transpose(2, 3, 1, 0))
    assert set(weights.unknown) == {"classifier.6.weight", "classifier.6.bias"}
    assert weights.origin == f"x.safetensors (PyTorch, VGG11{' with BatchNorm' if with_bn else ''})"


def test_a_vgg_s_dense_layers_become_convolutions(tmp_path):
    state = small_vgg(False)
    arrays = read_state(tmp_path, state).arrays
    x = draw("x", 4, 7, 7)
    want = state["classifier.0.weight"] @ x.ravel()  # torch.nn.Linear behind torch.flatten
    got = np.einsum("hwc,hwco->o", x.transpose(1, 2, 0), arrays["params/backbone/fc6/kernel"])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(arrays["params/backbone/fc7/kernel"][0, 0], state["classifier.3.weight"].T)


def test_timm_s_vgg_is_torchvision_s(tmp_path):
    """timm keeps fc6 and fc7 as convolutions."""
    timm = small_vgg(True, ("pre_logits.fc1", "pre_logits.fc2", "head.fc"))
    timm["pre_logits.fc1.weight"] = timm["pre_logits.fc1.weight"].reshape(6, 4, 7, 7)
    timm["pre_logits.fc2.weight"] = timm["pre_logits.fc2.weight"].reshape(6, 6, 1, 1)
    ours, theirs = read_state(tmp_path, small_vgg(True)), read_state(tmp_path, timm)
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, value in ours.arrays.items():
        np.testing.assert_array_equal(theirs.arrays[name], value)
    assert set(theirs.unknown) == {"head.fc.weight", "head.fc.bias"}


def test_weights_of_another_size_are_refused(tmp_path):
    state = small_vgg(False) | {"classifier.0.weight": np.zeros((6, 50), np.float32)}
    with pytest.raises(InputError, match=r"classifier\.0\.weight of .* has the shape \(6, 50\).*multiple of 49"):
        read_state(tmp_path, state)
    dense = {"classifier.0.weight": np.zeros((0, 49), np.float32)}
    with pytest.raises(InputError, match=r"classifier\.0\.weight of .* has the shape \(0, 49\)"):
        read_state(tmp_path, conv(3, 4, 3, "features.0") | dense)
    with pytest.raises(InputError, match=r"conv1\.weight of .* has the shape \(4, 3, 7\)"):
        read_state(tmp_path, {"conv1.weight": np.zeros((4, 3, 7), np.float32)})


def test_a_vgg_with_other_kernels_is_another_network(tmp_path):
    with pytest.raises(InputError, match="holds none of the networks"):
        read_state(tmp_path, conv(3, 4, 5, "features.0"))


def read_shapes(torch, folder, make) -> Weights:
    """What is read of a network's tensors, all zero."""
    with torch.device("meta"):
        shapes = make().state_dict()
    file = folder / "x.pth"
    zeros = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    # The former format ends with its last number, so what follows only makes the file as large as real weights are.
    torch.save(zeros, file, _use_new_zipfile_serialization=False)
    os.truncate(file, 1 << 30)
    return read(file)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "mobilenet_v2", "densenet121", "vit_b_16"])
def test_other_networks_are_refused(torch, torchvision, tmp_path, name):
    with pytest.raises(InputError, match=r"x\.pth holds none of the networks that are known here: its \d+ tensors"):
        read_shapes(torch, tmp_path, lambda: getattr(torchvision.models, name)(weights=None))


@pytest.mark.peers
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_torchvision_s_fcn_fills_ours(torch, torchvision, tmp_path, backbone):
    make = getattr(torchvision.models.segmentation, f"fcn_{backbone}")
    weights = read_shapes(
        torch, tmp_path, lambda: make(weights=None, weights_backbone=None, aux_loss=True, num_classes=21)
    )
    shapes = jax.eval_shape(DilatedFCN(21, backbone).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    want = {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    assert {name: value.shape for name, value in weights.arrays.items()} == want
    assert weights.unknown == ()
    assert weights.origin == f"x.pth (PyTorch, FCN on ResNet{backbone.removeprefix('resnet')})"


@pytest.mark.peers
def test_deeplab_gives_only_the_layers_that_an_fcn_has(torch, torchvision, tmp_path):
    deeplab = torchvision.models.segmentation.deeplabv3_resnet50
    weights = read_shapes(torch, tmp_path, lambda: deeplab(weights=None, weights_backbone=None, aux_loss=True))
    assert {name.split("/")[1] for name in weights.arrays} == {"backbone", "aux_classifier"}
    assert {"classifier.1.weight", "classifier.4.weight"} <= set(weights.unknown)
