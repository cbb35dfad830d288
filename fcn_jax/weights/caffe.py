"""Weights of Caffe: the nets of the reference, and the classifiers they start from (VGG, CaffeNet, GoogLeNet).

Our layers have the names of Caffe's. A kernel [out, in, h, w] becomes [h, w, in, out]. A classifier's fc6 and fc7
become convolutions (FCN paper, section 3.1; surgery.py of the reference), and its last layer has no place. Names end
differently in some of the reference's nets:

- The two heads of SIFT Flow, score_fr_sem and score_fr_geo, become one with the classes of both (`reference.JointFCN`).
- The two nets of late fusion, conv1_1color and conv1_1hha, become the streams colour and hha (`reference.LateFusion`).
- conv1_1_bgrd is conv1_1 with a fourth input channel, depth.
"""

import math
import re
from pathlib import Path

import numpy as np

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.caffemodel import Layer, read_layers
from fcn_jax.weights.weights import Weights

# The means that the reference's siftflow_layers.py and nyud_layers.py subtract. HHA images stay in their order.
SIFTFLOW_INPUT = InputConfig("bgr", (114.578, 115.294, 108.353), (1.0, 1.0, 1.0))
NYUD_INPUT = InputConfig("bgr", (116.190, 97.203, 92.318), (1.0, 1.0, 1.0))
HHA_INPUT = InputConfig("rgb", (132.431, 94.076, 118.477), (1.0, 1.0, 1.0), channels=(("hha", 3),))
COLOUR_D_INPUT = InputConfig(
    "bgr", (*NYUD_INPUT.mean, 7.844), (1.0,) * 4, log=(3,), channels=(("colour", 3), ("depth", 1)), dtype="uint16"
)
COLOUR_HHA_INPUT = InputConfig(
    "bgr", (*NYUD_INPUT.mean, *HHA_INPUT.mean), (1.0,) * 6, channels=(("colour", 3), ("hha", 3))
)
NYUD_CLASSES = 40
# A kernel of n groups becomes one with n times as many numbers, so n needs a limit. Masks have at most 255 classes.
MOST_CLASSES = 255

TASKS = ("_sem", "_geo")
STREAMS = {"color": "colour", "hha": "hha", None: ""}
LAYER = re.compile(
    r"(?P<trunk>conv[1-5](_[1-4])?|fc[67])(_bgrd)?(?P<stream>color|hha)?"
    r"|(?P<head>score_(fr|pool[34])|upscore(2|8|16|_pool4)?)((?P<of_stream>color|hha)|(?P<task>_sem|_geo))?"
)
# The at-once nets have their scales in the file. Here they are an attribute of the network, `skip_scales`.
SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}

GOOGLENET_STEM = {"conv1/7x7_s2": "conv1", "conv2/3x3_reduce": "conv2", "conv2/3x3": "conv3"}
GOOGLENET_BLOCK = re.compile(r"inception_(?P<block>[345][a-e])/(?P<branch>\w+)")
GOOGLENET_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2_0",
    "3x3": "branch2_1",
    "5x5_reduce": "branch3_0",
    "5x5": "branch3_1",
    "pool_proj": "branch4_1",
}


def read(file: Path) -> Weights:
    """Read a .caffemodel file.

    Raises:
        InputError: the file is damaged or of another format, none of its layers is known, or the weights of a layer
            have another shape than its name says.
    """
    net, layers = read_layers(file)
    found: dict[tuple[str, str], dict[str, Layer]] = {}  # layers by stream and path, and then by task
    unknown = []
    channels = 0
    for layer in layers:
        place = _find_place(layer.name)
        if layer.name in SCALES:
            _check_scale(layer, file)
        elif place is None:
            unknown.append(layer.name)
        else:
            stream, path, task = place
            if task in found.setdefault((stream, path), {}):
                raise InputError(f"{file} has layer {layer.name!r} twice; it is damaged, download it again")
            found[stream, path][task] = convolution = _convert_to_convolution(layer, channels, file)
            channels = len(convolution.blobs[0])
    if not found:
        raise InputError(
            f"none of the layers of {file} ({', '.join(unknown[:5])}, ...) belongs to VGG, CaffeNet, GoogLeNet or an "
            "FCN on one of these; give the weights of such a net"
        )
    arrays = {}
    streams = {stream for stream, _ in found} - {""} or {""}
    for (stream, path), tasks in found.items():
        # Late fusion has one upscore layer for both nets.
        for prefix in [stream] if stream in streams else sorted(streams):
            full = "/".join(part for part in ("params", prefix, path) if part)
            arrays |= _convert_layer(full, [tasks[task] for task in sorted(tasks, key=("", *TASKS).index)], file)
    net_name = f", net {net}" if net else ""
    trained_on = _identify_input(arrays, found.get(("", "score_fr"), {}), file)
    return Weights(arrays, tuple(unknown), trained_on, f"{file.name} (Caffe{net_name})")


def _find_place(name: str) -> tuple[str, str, str] | None:
    """Find the place of a Caffe layer: stream (or ""), path of our layer, task (or ""); None if it has none."""
    if match := LAYER.fullmatch(name):
        path = f"backbone/{match['trunk']}" if match["trunk"] else match["head"]
        return STREAMS[match["stream"] or match["of_stream"]], path, match["task"] or ""
    if name in GOOGLENET_STEM:
        return "", f"backbone/{GOOGLENET_STEM[name]}/conv", ""
    match = GOOGLENET_BLOCK.fullmatch(name)
    if match and match["branch"] in GOOGLENET_BRANCHES:
        return "", f"backbone/inception{match['block']}/{GOOGLENET_BRANCHES[match['branch']]}/conv", ""
    return None


def _convert_to_convolution(layer: Layer, channels: int, file: Path) -> Layer:
    """Check shapes, and give an inner product over a map of `channels` channels the kernel [out, channels, h, w]."""
    kernel, *bias = layer.blobs
    dense = kernel.ndim == 2 or kernel.shape[:2] == (1, 1)  # [out, in], or [1, 1, out, in] in files of 2014
    if dense and layer.name.startswith("fc"):
        out, inputs = kernel.shape[-2:]
        side = math.isqrt(inputs // channels) if channels else 0
        if inputs != channels * side**2:
            raise InputError(
                f"layer {layer.name!r} of {file} has {inputs} inputs, which is no square map of {channels} channels, "
                "as the layer before it has; give a net whose fully connected layers follow its convolutions"
            )
        kernel = kernel.reshape(out, channels, side, side)
    if layer.name.startswith("upscore"):
        fits = kernel.ndim == 4 and len(kernel) % kernel.shape[1] == 0 and not bias and len(kernel) <= MOST_CLASSES
        rule = (
            f"a deconvolution of n channels to n has a kernel [n, n / groups, h, w], n <= {MOST_CLASSES}, and no bias"
        )
    else:
        fits = kernel.ndim == 4 and [blob.size for blob in bias] in ([], [len(kernel)])
        rule = "a convolution has a kernel [out, in, h, w] and a bias [out]"
    if not fits:
        shapes = ", ".join(str(list(blob.shape)) for blob in layer.blobs)
        raise InputError(f"layer {layer.name!r} of {file} has blobs of the shapes {shapes}; {rule}")
    return Layer(layer.name, (kernel, *bias))


def _convert_layer(path: str, tasks: list[Layer], file: Path) -> dict[str, np.ndarray]:
    """Make kernel and bias of our layer from one Caffe layer, or from one for each task, with the outputs of all."""
    kernels = [layer.blobs[0] for layer in tasks]
    deconvolution = "upscore" in path
    if len({kernel.shape[2 if deconvolution else 1 :] for kernel in kernels}) > 1:
        shapes = ", ".join(f"{layer.name} {list(layer.blobs[0].shape)}" for layer in tasks)
        raise InputError(f"{file} has tasks with different kernels, {shapes}; on one trunk only their classes differ")
    if deconvolution:
        # Caffe adds x[i] * kernel[in, out, a] to y[i * stride + a]. Our kernels are those of correlations: reversed.
        blocks = [part for kernel in kernels for part in np.split(kernel, len(kernel) // kernel.shape[1])]
        whole = _join_blocks(blocks)[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        return {f"{path}/kernel": np.ascontiguousarray(whole)}
    kernel = np.concatenate(kernels).transpose(2, 3, 1, 0)
    arrays = {f"{path}/kernel": np.ascontiguousarray(kernel)}
    if all(len(layer.blobs) == 2 for layer in tasks):
        arrays[f"{path}/bias"] = np.concatenate([layer.blobs[1].ravel() for layer in tasks])
    return arrays


def _join_blocks(blocks: list[np.ndarray]) -> np.ndarray:
    """Join kernels of groups or tasks into one kernel [in, out, h, w], with zeros between different ones."""
    ins, outs = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    whole = np.zeros((ins[-1], outs[-1], *blocks[0].shape[2:]), np.float32)
    for index, block in enumerate(blocks):
        whole[ins[index] : ins[index + 1], outs[index] : outs[index + 1]] = block
    return whole


def _check_scale(layer: Layer, file: Path) -> None:
    """Check that a Scale layer has the factor of the at-once nets."""
    scale = SCALES[layer.name]
    if not np.allclose(layer.blobs[0], scale, rtol=1e-3):
        raise InputError(
            f"layer {layer.name!r} of {file} scales by {layer.blobs[0].ravel()[:3]} ...; it must be {scale} as in the "
            "at-once nets (model.skip-scales); multiply the kernel of the score layer after it instead"
        )


def _identify_input(arrays: dict[str, np.ndarray], scores: dict[str, Layer], file: Path) -> InputConfig | None:
    """Identify the input by the channels, and by the scores of the data set; None if the channels are others."""
    first = arrays.get("params/backbone/conv1_1/kernel")
    if any(path.startswith("params/colour/") for path in arrays):
        return COLOUR_HHA_INPUT
    if first is not None and first.shape[2] != 3:
        return COLOUR_D_INPUT if first.shape[2] == 4 else None
    if any(task in scores for task in TASKS):
        return SIFTFLOW_INPUT
    if "" in scores and len(scores[""].blobs[0]) == NYUD_CLASSES:
        # Nets on colour and on HHA differ only in their file's name.
        return HHA_INPUT if "hha" in file.name.lower() else NYUD_INPUT
    return CAFFE_INPUT
