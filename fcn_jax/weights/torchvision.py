"""Weights of PyTorch networks with the names of torchvision or timm: VGG, ResNet, torchvision's FCN and GoogLeNet.

Kernels of convolutions are transposed from [out, in, h, w] to [h, w, in, out]. VGG's dense layers fc6 and fc7 become
convolutions (paper, section 3.1). A classifier's last layer has no place in a segmentation network.
"""

import re
from pathlib import Path

import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.tensor_file import read_tensors
from fcn_jax.weights.weights import Weights

# Layers of which every known network has one, behind the names of the modules that the network is a part of.
LAYER = re.compile(r"(?P<prefix>(.+\.)?)(features\.\d+|inception3a\.branch1\.conv|layer\d\.\d+\.conv1)\.weight")
RESNET = re.compile(r"(?:backbone\.)?(conv1|bn1|layer\d\.\d+\.(?:conv\d|bn\d|downsample\.[01]))")
GOOGLENET = re.compile(r"((?:conv\d|inception\d[a-e]\.branch\d)(?:\.\d)?)\.(conv|bn)")
# torchvision's GoogLeNet changes ImageNet's normalization to this one (`transform_input` in its googlenet.py).
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
    """Read a .pth, .pt, .ckpt or .safetensors file.

    Args:
        file: the `state_dict` of a network, at the top or in one of `torch_state.ENTRIES`. The network may be a part of
            another module: a prefix that all its names have is left out.

    Returns:
        Arrays for the backbones `VGG`, `ResNet` and `GoogLeNet` (with BatchNorm), or for the whole of `DilatedFCN`.

    Raises:
        InputError: the file cannot be read, or it holds another network, or several networks.
    """
    tensors, place = read_tensors(file)
    shapes = {name: value.shape for name, value in tensors.items()}
    prefix, paths = _find_network(shapes, file)
    arrays: dict[str, np.ndarray] = {}
    unknown = []
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        # PyTorch needs its count of batches only for averages without a momentum, which none of these networks has.
        if kind == "num_batches_tracked":
            continue
        path = paths.get(module, "")
        names = NORM if "bn" in path.rpartition("/")[2] else CONV
        if not path or kind not in names:
            unknown.append(name)
            continue
        collection, leaf = names[kind]
        if leaf == "kernel":
            value = _transpose_kernel(value, side=7 if path == "backbone/fc6" else 1, name=f"{name} of {file}")
        full_path = f"{collection}/{path}/{leaf}"
        if full_path in arrays:
            raise InputError(
                f"{file} has two tensors for {full_path}, one of them {name}; give a file with a single network"
            )
        arrays[full_path] = value.astype(np.float32, copy=False)
    if not arrays:
        raise InputError(
            f"{file} holds none of the networks that are known here: its {len(tensors)} tensors are named "
            f"{', '.join(unknown[:3])}, ...; give a VGG or ResNet with the names of torchvision or timm, or "
            "torchvision's FCN or GoogLeNet"
        )
    network = _name_network(arrays)
    notes = [note for note in (network, place, prefix and f"prefix {prefix!r} left out") if note]
    trained_on = GOOGLENET_INPUT if network == "GoogLeNet" else InputConfig()
    return Weights(arrays, tuple(unknown), trained_on, f"{file.name} (PyTorch, {'; '.join(notes)})")


def _find_network(shapes: dict[str, tuple[int, ...]], file: Path) -> tuple[str, dict[str, str]]:
    """Find the prefix of the names of a network, and our path of each of its modules.

    The prefix is the one behind which most modules are known. For torchvision's FCN this is "": its backbone is known
    behind "backbone.", too, but its heads are not. Among prefixes of the same modules the longest is taken.

    Raises:
        InputError: there are several networks with as many modules.
    """
    layers = [match["prefix"] for name in shapes if (match := LAYER.fullmatch(name))]
    found = {}
    for prefix in dict.fromkeys(("", *layers, *(prefix.removesuffix("backbone.") for prefix in layers))):
        inner = {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}
        paths = _find_vgg_paths(inner) or _find_googlenet_paths(inner) or _find_resnet_paths(inner)
        modules = {name.rpartition(".")[0] for name in inner}
        found[prefix] = {prefix + module: path for module, path in paths.items() if module in modules}
    best = max(found, key=lambda prefix: (len(found[prefix]), len(prefix)))
    for prefix, modules in found.items():
        if len(modules) == len(found[best]) and modules.keys() != found[best].keys():
            raise InputError(
                f"{file} has two networks, with names that begin with {best!r} and with {prefix!r}; save one of them "
                f"alone: torch.save({{k: v for k, v in state.items() if k.startswith({best!r})}}, file)"
            )
    return best, found[best]


def _find_vgg_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Find our path of each module of a VGG. The result is empty for other networks.

    The layers of `features` are numbered consecutively. Each stage repeats convolution, (norm,) ReLU, and ends with a
    pooling. So a stage starts wherever two convolutions are one layer further apart than usual.
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


def _find_googlenet_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Find our path of each module of a GoogLeNet: "inception3a.branch2.0.conv" is "inception3a/branch2_0/conv"."""
    paths = {}
    for module in {name.rpartition(".")[0] for name in shapes} if "inception3a.branch1.conv.weight" in shapes else ():
        if match := GOOGLENET.fullmatch(module):
            unit = re.sub(r"\.(\d)$", r"_\1", match[1]).replace(".", "/")
            paths[module] = f"backbone/{unit}/{match[2]}"
    return paths


def _find_resnet_paths(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Find our path of each module of a ResNet, and of the heads of torchvision's FCN."""
    paths = {}
    for module in {name.rpartition(".")[0] for name in shapes}:
        if match := RESNET.fullmatch(module):
            path = re.sub(r"layer(\d)\.(\d+)\.", r"layer\1_\2/", match[1])
            paths[module] = "backbone/" + path.replace("downsample.0", "downsample_conv").replace(
                "downsample.1", "downsample_bn"
            )
    for head in ("classifier", "aux_classifier"):
        if f"{head}.0.weight" in shapes:  # DeepLab has classifier.0.convs, and other layers as classifier.1 and 4
            paths |= {f"{head}.{number}": f"{head}/{layer}" for number, layer in FCN_HEAD.items()}
    return paths


def _transpose_kernel(value: np.ndarray, side: int, name: str) -> np.ndarray:
    """Convert PyTorch's weights to a kernel. A dense layer becomes a convolution whose window is the whole map."""
    if value.ndim == 2 and value.size and value.shape[1] % side**2 == 0:
        value = value.reshape(len(value), -1, side, side)
    if value.ndim != 4:
        raise InputError(
            f"{name} has the shape {value.shape}; a convolution has [out, in, h, w], a dense layer [out, in] with in a "
            f"multiple of {side**2}; give the weights of a network of that size"
        )
    return value.transpose(2, 3, 1, 0)


def _name_network(arrays: dict[str, np.ndarray]) -> str:
    """Name the network, with its depth counted as in the papers."""
    if "params/backbone/inception3a/branch1/conv/kernel" in arrays:
        return "GoogLeNet"
    if "params/backbone/conv1_1/kernel" in arrays:
        depth = 3 + sum("/conv" in path and path.endswith("kernel") for path in arrays)
        return f"VGG{depth}" + (" with BatchNorm" if "params/backbone/bn1_1/scale" in arrays else "")
    depth = 2 + sum(re.fullmatch(r"params/backbone/layer.*/conv\d/kernel", path) is not None for path in arrays)
    return f"FCN on ResNet{depth}" if "params/classifier/conv/kernel" in arrays else f"ResNet{depth}"
