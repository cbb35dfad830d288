"""Caffe nets for tests: written as lists of layers, saved as Caffe saves them, run by PyTorch and by OpenCV.

The lists follow the reference's net.py files and BVLC's classifiers. Nothing here uses fcn_jax.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import pytest

OPENCV = "opencv-python-headless==4.12.0.88"  # OpenCV 5 no longer reads Caffe's nets


class Layer(NamedTuple):
    """A layer with one top, named like itself."""

    name: str
    kind: str
    bottoms: tuple[str, ...]
    options: dict[str, Any]


class Net:
    """Layers in their order, with the channels of each top."""

    def __init__(self, **inputs: int):
        self.inputs = inputs
        self.layers: list[Layer] = []
        self.channels = dict(inputs)
        self.shapes: dict[str, list[tuple[int, ...]]] = {}  # of blobs

    def add(self, name: str, kind: str, *bottoms: str, **options: Any) -> str:
        self.layers.append(Layer(name, kind, bottoms, options))
        ins, out = self.channels[bottoms[0]], options.get("num_output", self.channels[bottoms[0]])
        self.channels[name] = sum(self.channels[b] for b in bottoms) if kind == "Concat" else out
        if kind in ("Convolution", "Deconvolution"):
            side, group = options["kernel_size"], options.get("group", 1)
            first, second = (out, ins // group) if kind == "Convolution" else (ins, out // group)
            bias = [(out,)] if options.get("bias_term", True) else []
            self.shapes[name] = [(first, second, side, side), *bias]
        elif kind == "InnerProduct":
            self.shapes[name] = [(out, ins * options["cells"]), (out,)]
        elif kind == "Scale":
            self.shapes[name] = [(ins,)]
        return name

    def conv(self, name: str, bottom: str, features: int, side: int, relu: bool = True, **options: Any) -> str:
        top = self.add(name, "Convolution", bottom, num_output=features, kernel_size=side, **options)
        return self.add(f"relu_{name}", "ReLU", top) if relu else top

    def pool(self, name: str, bottom: str, side: int, stride: int = 2, pad: int = 0) -> str:
        return self.add(name, "Pooling", bottom, kernel_size=side, stride=stride, pad=pad)

    def random_weights(self, seed: int = 0) -> dict[str, list[np.ndarray]]:
        """Kernels that keep the size of activations, and nothing symmetric."""
        generator = np.random.default_rng(seed)
        kinds = {layer.name: layer for layer in self.layers}
        weights = {}
        for name, shapes in self.shapes.items():
            layer = kinds[name]
            if layer.kind == "Scale":
                weights[name] = [np.full(shapes[0], layer.options["value"], np.float32)]
                continue
            first, second, side, *_ = (*shapes[0], 1, 1)
            fan_in = second * side**2
            if layer.kind == "Deconvolution":
                fan_in = first * side**2 / layer.options["stride"] ** 2
            scales = {True: np.float32(np.sqrt(2 / fan_in)), False: np.float32(0.1)}
            weights[name] = [generator.standard_normal(shape, np.float32) * scales[len(shape) > 1] for shape in shapes]
        return weights


# ------------------------------------------------------------------------------------------------------ the nets


def vgg(net: Net, data: str, small: bool, ending: str = "", first: str = "conv1_1", pad: int = 100) -> dict[str, str]:
    """VGG16, or one with a convolution a stage and 16 channels in fc6 and fc7; pool3, pool4 and fc7."""
    x, tops = data, {}
    for stage, depth in enumerate((1,) * 5 if small else (2, 2, 3, 3, 3), start=1):
        for index in range(1, depth + 1):
            name = first if stage == index == 1 else f"conv{stage}_{index}"
            features = min(64 * 2 ** (stage - 1), 512)
            x = net.conv(name + ending, x, features, 3, pad=pad if stage == index == 1 else 1)
        x = tops[f"pool{stage}"] = net.pool(f"pool{stage}{ending}", x, 2)
    features = 16 if small else 4096
    x = net.conv(f"fc6{ending}", x, features, 7)
    tops["fc7"] = net.conv(f"fc7{ending}", x, features, 1)
    return tops


def caffenet_features(net: Net, data: str, pad: int = 0) -> str:
    x = net.conv("conv1", data, 96, 11, stride=4, pad=pad)
    x = net.add("norm1", "LRN", net.pool("pool1", x, 3), local_size=5, alpha=1e-4, beta=0.75)
    x = net.conv("conv2", x, 256, 5, pad=2, group=2)
    x = net.add("norm2", "LRN", net.pool("pool2", x, 3), local_size=5, alpha=1e-4, beta=0.75)
    x = net.conv("conv3", x, 384, 3, pad=1)
    x = net.conv("conv4", x, 384, 3, pad=1, group=2)
    x = net.conv("conv5", x, 256, 3, pad=1, group=2)
    return net.pool("pool5", x, 3)


def caffenet_heads(net: Net, x: str, features: int) -> str:
    return net.conv("fc7", net.conv("fc6", x, features, 6), features, 1)


def up(net: Net, name: str, x: str, classes: int, side: int) -> str:
    options = {"kernel_size": side, "stride": (side + 1) // 2, "bias_term": False}
    return net.add(name, "Deconvolution", x, num_output=classes, **options)


def fused(net: Net, x: str, to: str, ending: str, pool: str, offset: int) -> str:
    classes = net.channels[x]
    skip = net.conv(f"score_{pool}{ending}", to, classes, 1, relu=False)
    cropped = net.add(f"score_{pool}{ending}c", "Crop", skip, x, offset=offset)
    return net.add(f"fuse_{pool}{ending}", "Eltwise", x, cropped)


def head(net: Net, tops: dict[str, str], classes: int, stride: int, ending: str = "", data: str = "data") -> str:
    """The reference's score layers, upsamplings and crops."""
    x = net.conv(f"score_fr{ending}", tops["fc7"], classes, 1, relu=False)
    if stride <= 16:
        x = fused(net, up(net, f"upscore2{ending}", x, classes, 4), tops["pool4"], ending, "pool4", 5)
    if stride <= 8:
        x = fused(net, up(net, f"upscore_pool4{ending}", x, classes, 4), tops["pool3"], ending, "pool3", 9)
    last = "upscore" if stride == 32 else f"upscore{stride}"
    x = up(net, last + ending, x, classes, 2 * stride)
    return net.add(f"score{ending}", "Crop", x, data, offset={32: 19, 16: 27, 8: 31}[stride])


def on_vgg(classes: int, stride: int, small: bool, channels: int = 3, first: str = "conv1_1") -> Net:
    net = Net(data=channels)
    head(net, vgg(net, "data", small, first=first), classes, stride)
    return net


def at_once(small: bool) -> Net:
    net = Net(data=3)
    tops = vgg(net, "data", small)
    for pool, scale in (("pool4", 0.01), ("pool3", 0.0001)):
        tops[pool] = net.add(f"scale_{pool}", "Scale", tops[pool], value=scale)
    head(net, tops, 21, 8)
    return net


def fcn_alexnet(small: bool) -> Net:
    net = Net(data=3)
    x = caffenet_heads(net, caffenet_features(net, "data", pad=100), 16 if small else 4096)
    x = net.conv("score_fr", x, 21, 1, relu=False)
    net.add("score", "Crop", up(net, "upscore", x, 21, 63), "data", offset=18)
    return net


def siftflow(small: bool, stride: int) -> Net:
    net = Net(data=3)
    tops = vgg(net, "data", small)
    for ending, classes in (("_sem", 33), ("_geo", 3)):
        head(net, tops, classes, stride, ending)
    return net


def late_fusion(small: bool) -> Net:
    net = Net(color=3, hha=3)
    scores = [
        net.conv(f"score_fr{data}", vgg(net, data, small, ending=data)["fc7"], 40, 1, relu=False)
        for data in ("color", "hha")
    ]
    x = net.add("score_fused", "Eltwise", *scores, coeff=[0.5, 0.5])
    net.add("score", "Crop", up(net, "upscore", x, 40, 64), "color", offset=19)
    return net


REFERENCE: dict[str, Callable[[bool], Net]] = {
    "voc-fcn32s": lambda small: on_vgg(21, 32, small),
    "voc-fcn16s": lambda small: on_vgg(21, 16, small),
    "voc-fcn8s": lambda small: on_vgg(21, 8, small),
    "voc-fcn8s-atonce": at_once,
    "voc-fcn-alexnet": fcn_alexnet,
    "pascalcontext-fcn8s": lambda small: on_vgg(60, 8, small),
    "siftflow-fcn8s": lambda small: siftflow(small, 8),
    "nyud-fcn32s-color-d": lambda small: on_vgg(40, 32, small, 4, "conv1_1_bgrd"),
    "nyud-fcn32s-color-hha": late_fusion,
}


def caffenet(features: int = 64) -> Net:
    """The classifier, at 227x227."""
    net = Net(data=3)
    x = caffenet_features(net, "data")
    for name, cells in (("fc6", 36), ("fc7", 1)):
        x = net.add(f"relu_{name}", "ReLU", net.add(name, "InnerProduct", x, num_output=features, cells=cells))
    net.add("fc8", "InnerProduct", x, num_output=10, cells=1)
    return net


def googlenet() -> Net:
    """bvlc_googlenet up to its last map."""
    net = Net(data=3)
    x = net.pool("pool1/3x3_s2", net.conv("conv1/7x7_s2", "data", 64, 7, stride=2, pad=3), 3)
    x = net.add("pool1/norm1", "LRN", x, local_size=5, alpha=1e-4, beta=0.75)
    x = net.conv("conv2/3x3", net.conv("conv2/3x3_reduce", x, 64, 1), 192, 3, pad=1)
    x = net.add("conv2/norm2", "LRN", x, local_size=5, alpha=1e-4, beta=0.75)
    x = net.pool("pool2/3x3_s2", x, 3)
    table = """3a 64 96 128 16 32 32/3b 128 128 192 32 96 64/4a 192 96 208 16 48 64/4b 160 112 224 24 64 64/
        4c 128 128 256 24 64 64/4d 112 144 288 32 64 64/4e 256 160 320 32 128 128/5a 256 160 320 32 128 128/
        5b 384 192 384 48 128 128"""
    for row in table.split("/"):
        block, *numbers = row.split()
        one, reduce3, three, reduce5, five, pooled = map(int, numbers)
        path = f"inception_{block}"
        branches = (
            net.conv(f"{path}/1x1", x, one, 1),
            net.conv(f"{path}/3x3", net.conv(f"{path}/3x3_reduce", x, reduce3, 1), three, 3, pad=1),
            net.conv(f"{path}/5x5", net.conv(f"{path}/5x5_reduce", x, reduce5, 1), five, 5, pad=2),
            net.conv(f"{path}/pool_proj", net.pool(f"{path}/pool", x, 3, stride=1, pad=1), pooled, 1),
        )
        x = net.add(f"{path}/output", "Concat", *branches)
        if block in ("3b", "4e"):
            x = net.pool(f"pool{block[0]}/3x3_s2", x, 3)
    return net


# ----------------------------------------------------------------------------------------------- files of a net


def prototxt(net: Net, inputs: dict[str, np.ndarray]) -> str:
    """The net in Caffe's text format, for inputs [n, c, h, w] of these shapes."""
    text = []
    for name, value in inputs.items():
        dims = " ".join(f"dim: {size}" for size in value.shape)
        text.append(f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}')
    blocks = {"Deconvolution": "convolution", "InnerProduct": "inner_product"}
    for layer in net.layers:
        options = {name: value for name, value in layer.options.items() if name not in ("cells", "value")}
        options |= {"Crop": {"axis": 2}, "Eltwise": {"operation": "SUM"}, "Pooling": {"pool": "MAX"}}.get(
            layer.kind, {}
        )
        words = []
        for name, value in options.items():
            for item in value if isinstance(value, list) else [value]:
                words.append(f"{name}: {str(item).lower() if isinstance(item, bool) else item}")
        bottoms = " ".join(f'bottom: "{bottom}"' for bottom in layer.bottoms)
        block = blocks.get(layer.kind, layer.kind.lower())
        parameters = f"{block}_param {{ {' '.join(words)} }}" if words else ""
        text.append(f'layer {{ name: "{layer.name}" type: "{layer.kind}" {bottoms} top: "{layer.name}" {parameters} }}')
    return "\n".join(text)


def reference_prototxt(folder: Path, inputs: dict[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """The reference's own net file with Input layers for its data and without losses; and its inputs."""
    text = next(file for name in ("val", "test") if (file := folder / f"{name}.prototxt").exists()).read_text()
    layers = re.findall(r"^layer \{$.*?^\}$", text, flags=re.MULTILINE | re.DOTALL)
    kept = [layer for layer in layers if not re.search(r'type: "(Python|SoftmaxWithLoss)"', layer)]
    if 'type: "Concat"' in text:  # early fusion: colour and depth are one input in `inputs`
        inputs = {"color": inputs["data"][:, :3].copy(), "depth": inputs["data"][:, 3:].copy()}
    return prototxt(Net(**{name: value.shape[1] for name, value in inputs.items()}), inputs) + "".join(kept), inputs


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def blob(value: np.ndarray, legacy: bool = False, packed: bool = True, double: bool = False) -> bytes:
    """A BlobProto."""
    if legacy:
        shape = (1,) * (4 - value.ndim) + value.shape
        head = b"".join(field(number, size) for number, size in enumerate(shape, start=1))
    else:
        head = field(7, field(1, b"".join(map(_varint, value.shape))))
    number, kind, wire = (8, "<f8", 1) if double else (5, "<f4", 5)
    data = value.astype(kind).tobytes()
    if packed:
        return head + field(number, data)
    size = np.dtype(kind).itemsize
    key = _varint(number << 3 | wire)
    return head + b"".join(key + data[at : at + size] for at in range(0, len(data), size))


def caffemodel(
    net: Net | None, weights: dict[str, list[np.ndarray]], name: str = "", v1: bool = False, **options: bool
) -> bytes:
    """A NetParameter with these blobs, as Caffe saves it, or as it did in 2014 (`v1`)."""
    kinds = {layer.name: layer.kind for layer in net.layers} if net else {}
    numbers = {"Convolution": 4, "Deconvolution": 39, "InnerProduct": 14}
    layers = []
    for layer, blobs in weights.items():
        kind = kinds.get(layer, "Convolution")
        packed = [blob(value, **options) for value in blobs]
        if v1:
            fields = [field(4, layer.encode()), field(5, numbers[kind]), *(field(6, value) for value in packed)]
        else:
            fields = [field(1, layer.encode()), field(2, kind.encode()), *(field(7, value) for value in packed)]
        layers.append(field(2 if v1 else 100, b"".join(fields)))
    return field(1, name.encode()) + b"".join(layers)


# ----------------------------------------------------------------------------------------------------- its peers


def run_torch(net: Net, weights: dict[str, list[np.ndarray]], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All tops by PyTorch; inputs and tops are [n, c, h, w]."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    tops = {name: torch.from_numpy(value) for name, value in inputs.items()}
    for name, kind, bottoms, options in net.layers:
        x, *others = (tops[bottom] for bottom in bottoms)
        kernel, bias, *_ = [*map(torch.from_numpy, weights.get(name, [])), None, None]
        geometry = {"stride": options.get("stride", 1), "padding": options.get("pad", 0)}
        if kind == "Convolution":
            y = f.conv2d(x, kernel, bias, groups=options.get("group", 1), **geometry)
        elif kind == "Deconvolution":
            y = f.conv_transpose2d(x, kernel, bias, groups=options.get("group", 1), **geometry)
        elif kind == "InnerProduct":
            y = f.linear(x.flatten(1), kernel, bias)[:, :, None, None]
        elif kind == "Pooling":
            y = f.max_pool2d(x, options["kernel_size"], ceil_mode=True, **geometry)
        elif kind == "LRN":
            y = f.local_response_norm(x, options["local_size"], options["alpha"], options["beta"])
        elif kind == "Scale":
            y = x * kernel[:, None, None]
        elif kind == "Crop":
            at, (height, width) = options["offset"], others[0].shape[2:]
            y = x[:, :, at : at + height, at : at + width]
            assert y.shape[2:] == (height, width)
        elif kind == "Eltwise":
            y = sum(c * t for c, t in zip(options.get("coeff", [1, 1]), (x, *others), strict=True))
        elif kind == "Concat":
            y = torch.cat([x, *others], dim=1)
        else:
            y = {"ReLU": torch.relu}[kind](x)
        tops[name] = y
    return {name: value.numpy() for name, value in tops.items()}


RUN_OPENCV = """
import json, pathlib, sys
import cv2, numpy
folder, outputs = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
for name, value in numpy.load(folder / "inputs.npz").items():
    net.setInput(value, name)
numpy.savez(folder / "outputs.npz", **dict(zip(outputs, net.forward(outputs))))
"""


def run_opencv(
    python: str, folder: Path, text: str, model: bytes | None, inputs: dict[str, np.ndarray], outputs: Iterable[str]
) -> dict[str, np.ndarray]:
    """Tops by OpenCV's reader of Caffe nets; `model` None: net.caffemodel is in the folder."""
    (folder / "net.prototxt").write_text(text)
    if model is not None:
        (folder / "net.caffemodel").write_bytes(model)
    np.savez(folder / "inputs.npz", **inputs)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-c", RUN_OPENCV, str(folder), json.dumps(list(outputs))]
    subprocess.run(command, check=True, env=environment)
    with np.load(folder / "outputs.npz") as values:
        return dict(values)


def opencv_python() -> str:
    """A Python that has OpenCV, made the first time: OpenCV must not be where TFDS would decode images with it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fcn_jax" / OPENCV
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with filelock.FileLock(folder.with_suffix(".lock")):  # the test files run at the same time
        if not (folder / "complete").exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(python), "-m", "pip", "install", "--quiet", OPENCV],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"no environment with {OPENCV}: {' '.join(command)} says {done.stderr.strip()[-300:]}")
            (folder / "complete").touch()
    return str(python)
