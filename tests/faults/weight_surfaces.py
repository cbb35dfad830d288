"""Files of weights, as `weights import` reads them."""

import io
import itertools
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import caffe_peer
import h5py
import numpy as np
import safetensors.numpy
from faults.harness import Surface

from fcn_jax.weights import ours
from fcn_jax.weights.describe import describe_weights
from fcn_jax.weights.read import read_weights
from fcn_jax.weights.weights import Weights

RNG = np.random.default_rng(0)
Arrays = Mapping[str, np.ndarray]


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: RNG.standard_normal(shape, np.float32) for name, shape in shapes.items()}


VGG = drawn({
    "features.0.weight": (2, 3, 3, 3), "features.0.bias": (2,), "features.3.weight": (2, 2, 3, 3),
    "features.3.bias": (2,), "classifier.0.weight": (2, 2 * 49), "classifier.0.bias": (2,),
})  # fmt: skip
RESNET = drawn({
    "conv1.weight": (2, 3, 7, 7), "bn1.weight": (2,), "bn1.bias": (2,), "bn1.running_mean": (2,),
    "layer1.0.conv1.weight": (2, 2, 1, 1), "layer1.0.bn1.weight": (2,), "fc.weight": (3, 2),
})  # fmt: skip


def pickle_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def pickle_state(arrays: Arrays) -> bytes:
    """Pickle a dictionary of tensors as torch.save does, opcode by opcode, without PyTorch."""
    parts = [b"\x80\x02}("]
    for key, (name, array) in enumerate(arrays.items()):
        shape, strides = ("".join(f"J{_int(n)}" for n in numbers) for numbers in (array.shape, _strides(array)))
        storage = b"(" + pickle_text("storage") + b"ctorch\nFloatStorage\n" + pickle_text(str(key))
        storage += pickle_text("cpu") + b"J" + struct.pack("<i", array.size) + b"tQ"
        view = b"K\0(" + shape.encode("latin-1") + b"t(" + strides.encode("latin-1") + b"t"
        rest = b"\x89ccollections\nOrderedDict\n)R"
        parts.append(pickle_text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + rest + b"tR")
    return b"".join([*parts, b"u."])


def _int(number: int) -> str:
    return struct.pack("<i", number).decode("latin-1")


def _strides(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def torch_zip(arrays: Arrays, content: bytes | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle_state(arrays) if content is None else content)
        archive.writestr("x/byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"x/data/{key}", array.tobytes())
    return file.getvalue()


def torch_legacy(arrays: Arrays, content: bytes | None = None) -> bytes:
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [pickle_state(arrays) if content is None else content]
    parts += [pickle.dumps([str(key) for key in range(len(arrays))], 2)]
    return b"".join(parts) + b"".join(struct.pack("<q", a.size) + a.tobytes() for a in arrays.values())


def hdf5(numbered: bool, **options: object) -> bytes:
    """A Keras file of both formats, with a dense layer."""
    shapes = {"block1_conv1": (3, 3, 3, 2), "fc1": (98, 3), "fc2": (3, 3), "predictions": (3, 5)}
    file = io.BytesIO()
    with h5py.File(file, "w", **options) as opened:
        for number, (name, shape) in enumerate(shapes.items()):
            group = opened.create_group(f"layers/conv2d_{number}/vars" if numbered else name)
            keys = ("0", "1") if numbered else (f"{name}/kernel:0", f"{name}/bias:0")
            group.attrs.update({"name": name} if numbered else {"weight_names": keys})
            for key, array in zip(keys, drawn({"k": shape, "b": shape[-1:]}).values(), strict=True):
                group[key] = array
        if not numbered:
            opened.attrs["layer_names"] = [name.encode() for name in shapes]
    return file.getvalue()


def our_file() -> bytes:
    arrays = drawn({"params/backbone/conv1/kernel": (3, 3, 3, 2), "params/score_fr/kernel": (1, 1, 2, 3)})
    note = {
        "origin": "a.pth",
        "input": {"order": "bgr", "mean": [1, 2, 3], "std": [1, 1, 1]},
        "class_names": list("abc"),
    }
    return safetensors.numpy.save(arrays, {ours.NOTE: json.dumps(note)})


def caffe(**options: bool) -> bytes:
    shapes = {"conv1_1": [(2, 3, 3, 3), (2,)], "fc6": [(5, 18), (5,)], "upscore2": [(4, 1, 2, 2)], "fc8": [(7, 5)]}
    blobs = {name: [RNG.standard_normal(s).astype(np.float32) for s in some] for name, some in shapes.items()}
    return caffe_peer.caffemodel(None, blobs, "toy", **options)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **VGG)
    return file.getvalue()


def import_weights(file: Path) -> Weights:
    """Read, describe and write weights, as the command does."""
    weights = read_weights(file)
    describe_weights(weights)
    ours.write(file.with_name("out.safetensors"), weights)
    return weights


SURFACES = [
    Surface("weights: safetensors", [our_file(), safetensors.numpy.save(VGG), safetensors.numpy.save(RESNET)],
            import_weights),
    Surface("weights: caffemodel", [caffe(v1=a, legacy=b, packed=c, double=d)
                                    for a, b, c, d in itertools.product((False, True), repeat=4)],
            import_weights, share=2),
    Surface("weights: PyTorch's zip", [torch_zip(VGG), torch_zip(RESNET)], import_weights),
    Surface("weights: PyTorch before 1.6", [torch_legacy(VGG), torch_legacy(RESNET)], import_weights, share=2),
    Surface("weights: HDF5", [hdf5(False), hdf5(True), hdf5(True, libver="latest")], import_weights, share=0.7),
]  # fmt: skip
