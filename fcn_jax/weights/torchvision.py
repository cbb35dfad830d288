"""Weights of PyTorch networks with the names of torchvision or timm: VGG, ResNet, torchvision's FCN and GoogLeNet.

Convolutions are turned from [out, in, rows, columns] to [rows, columns, in, out]. VGG's dense layers fc6 and fc7 become
convolutions (paper, section 3.1); a classifier's last layer stands for nothing in a segmentation network.
"""

import re
from pathlib import Path

import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.tensor_file import read_tensors
from fcn_jax.weights.weights import Weights

# What torch.nn.DataParallel and torch.compile put around a network.
AROUND = re.compile(r"^(module\.|_orig_mod\.)+")
RESNET = re.compile(r"(?:backbone\.)?(conv1|bn1|layer\d\.\d+\.(?:conv\d|bn\d|downsample\.[01]))")
GOOGLENET = re.compile(r"((?:conv\d|inception\d[a-e]\.branch\d)(?:\.\d)?)\.(conv|bn)")
# What torchvision's GoogLeNet makes of ImageNet's normalisation (`transform_input` in its googlenet.py).
GOOGLENET_INPUT = InputConfig(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
VGG_FEATURES = re.compile(r"features\.(\d+)\.(weight|bias|running_mean|running_var|num_batches_tracked)")
# torchvision's names, and timm's.
VGG_DENSE = {"classifier.0": "fc6", "classifier.3": "fc7", "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7"}
FCN_HEAD = {"0": "conv", "1": "bn", "4": "score"}
CONV = {"weight": ("params", "kernel"), "bias": ("params", "bias")}
NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def read(file: Path) -> Weights:
    """Reads a .pth, .pt or .safetensors file.

    Args:
        file: a network's `state_dict`, alone or under one of `torch_file.WRAPPERS`.

    Returns:
        Arrays for the backbones `VGG`, `ResNet` and `GoogLeNet` (with BatchNorm), or for all of `DilatedFCN`.

    Raises:
        InputError: the file cannot be read, or its names are those of other networks.
    """
    tensors = [(AROUND.sub("", name), name, value) for name, value in read_tensors(file).items()]
    shapes = {name: value.shape for name, _, value in tensors}
    paths = _vgg_paths(shapes) or _googlenet_paths(shapes) or _resnet_paths(shapes)
    arrays: dict[str, np.ndarray] = {}
    unknown = []
    for name, full_name, value in tensors:
        module, _, kind = name.rpartition(".")
        # PyTorch's count of batches serves averages without a momentum alone, which none of these networks has.
        if kind == "num_batches_tracked":
            continue
        path = paths.get(module, "")
        names = NORM if "bn" in path.rpartition("/")[2] else CONV
        if not path or kind not in names:
            unknown.append(full_name)
            continue
        collection, leaf = names[kind]
        if leaf == "kernel":
            value = _kernel(value, side=7 if path == "backbone/fc6" else 1, name=f"{full_name} of {file}")
        full_path = f"{collection}/{path}/{leaf}"
        if full_path in arrays:
            raise InputError(
                f"{file} has two tensors for {full_path}, one of them {full_name}; give a file of one network alone"
            )
        arrays[full_path] = value.astype(np.float32, copy=False)
    if not arrays:
        raise InputError(
            f"{file} holds none of the networks that are known here: its {len(tensors)} tensors are named "
            f"{', '.join(unknown[:3])}, ...; give weights with torchvision's or timm's names of a VGG or ResNet, or of "
            "torchvision's FCN or GoogLeNet"
        )
    trained_on = GOOGLENET_INPUT if _is_googlenet(shapes) else InputConfig()
    return Weights(arrays, tuple(unknown), trained_on, f"{file.name} (PyTorch, {_what(arrays)})")


def _vgg_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Our path of each of a VGG's modules; of none where the tensors are another network's.

    The layers of `features` are numbered in one row: convolution, (norm,) ReLU, as often as the stage is deep, then a
    pooling, then the next stage. So one more layer than usual between two convolutions starts a stage.
    """
    features = [name for name in shapes if name.startswith("features.")]
    if not features or not all(map(VGG_FEATURES.fullmatch, features)):
        return {}
    weights = [(int(name.split(".")[1]), shapes[name]) for name in features if name.endswith(".weight")]
    convs = sorted(place for place, shape in weights if len(shape) == 4)
    if any(len(shape) == 4 and shape[2:] != (3, 3) for _, shape in weights):
        return {}
    layers = 3 if "features.1.running_mean" in shapes else 2
    paths = {name: f"backbone/{path}" for name, path in VGG_DENSE.items()}
    stage, index, before = 1, 0, -layers
    for place in convs:
        stage, index = (stage, index + 1) if place - before == layers else (stage + 1, 1)
        paths[f"features.{place}"] = f"backbone/conv{stage}_{index}"
        if layers == 3:
            paths[f"features.{place + 1}"] = f"backbone/bn{stage}_{index}"
        before = place
    return paths


def _is_googlenet(shapes: dict[str, tuple[int, ...]]) -> bool:
    return "inception3a.branch1.conv.weight" in shapes


def _googlenet_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Our path of each of a GoogLeNet's modules: "inception3a.branch2.0.conv" is "inception3a/branch2_0/conv"."""
    paths = {}
    for module in {name.rpartition(".")[0] for name in shapes} if _is_googlenet(shapes) else ():
        if match := GOOGLENET.fullmatch(module):
            unit = re.sub(r"\.(\d)$", r"_\1", match[1]).replace(".", "/")
            paths[module] = f"backbone/{unit}/{match[2]}"
    return paths


def _resnet_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Our path of each of a ResNet's modules, and of the heads of torchvision's FCN."""
    paths = {}
    for module in {name.rpartition(".")[0] for name in shapes}:
        if match := RESNET.fullmatch(module):
            path = re.sub(r"layer(\d)\.(\d+)\.", r"layer\1_\2/", match[1])
            paths[module] = "backbone/" + path.replace("downsample.0", "downsample_conv").replace(
                "downsample.1", "downsample_bn"
            )
    for head in ("classifier", "aux_classifier"):
        if f"{head}.0.weight" in shapes:  # DeepLab's classifier.1 and 4 are other layers, behind a classifier.0.convs
            paths |= {f"{head}.{number}": f"{head}/{layer}" for number, layer in FCN_HEAD.items()}
    return paths


def _kernel(value: np.ndarray, side: int, name: str) -> np.ndarray:
    """PyTorch's weights as a kernel; those of a dense layer as of a convolution whose window the map just fills."""
    if value.ndim == 2 and value.shape[1] % side**2 == 0:
        value = value.reshape(len(value), -1, side, side)
    if value.ndim != 4:
        raise InputError(
            f"{name} has the shape {value.shape}; a convolution's is [out, in, rows, columns], a dense layer's "
            f"[out, in] with in a multiple of {side**2}: is it of a network of another size?"
        )
    return value.transpose(2, 3, 1, 0)


def _what(arrays: dict[str, np.ndarray]) -> str:
    """The network's name, its depth counted as in the papers."""
    if "params/backbone/inception3a/branch1/conv/kernel" in arrays:
        return "GoogLeNet"
    if "params/backbone/conv1_1/kernel" in arrays:
        depth = 3 + sum("/conv" in path and path.endswith("kernel") for path in arrays)
        return f"VGG{depth}" + (" with BatchNorm" if "params/backbone/bn1_1/scale" in arrays else "")
    depth = 2 + sum(re.fullmatch(r"params/backbone/layer.*/conv\d/kernel", path) is not None for path in arrays)
    return f"FCN on ResNet{depth}" if "params/classifier/conv/kernel" in arrays else f"ResNet{depth}"
