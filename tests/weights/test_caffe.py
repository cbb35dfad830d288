"""Reading .caffemodel files: every form of the format, the classifiers, and what is no such file."""

import caffe_peer
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from fcn_jax.config import CAFFE_INPUT, InputConfig
from fcn_jax.errors import InputError
from fcn_jax.layers import conv_transpose
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.weights import caffe


def drawn(**shapes: tuple[int, ...] | list[tuple[int, ...]]) -> dict[str, list[np.ndarray]]:
    """Random blobs a layer: a kernel, or all that are given."""
    generator = np.random.default_rng(0)
    listed = {name: shape if isinstance(shape, list) else [shape] for name, shape in shapes.items()}
    return {name: [generator.standard_normal(s).astype(np.float32) for s in some] for name, some in listed.items()}


def read(folder, content: bytes, name: str = "net.caffemodel"):
    (folder / name).write_bytes(content)
    return caffe.read(folder / name)


SMALL = drawn(conv1_1=[(4, 3, 3, 3), (4,)], fc6=[(5, 4 * 3 * 3), (5,)], fc8=[(7, 5), (7,)])


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_every_form_of_the_format_reads_the_same(v1, legacy, packed, double, tmp_path):
    content = caffe_peer.caffemodel(None, SMALL, "toy", v1=v1, legacy=legacy, packed=packed, double=double)
    weights = read(tmp_path, content)
    out, ins, rows, columns = np.ogrid[:4, :3, :3, :3]
    expected = {
        "params/backbone/conv1_1/kernel": np.zeros((3, 3, 3, 4), np.float32),
        "params/backbone/conv1_1/bias": SMALL["conv1_1"][1],
        "params/backbone/fc6/kernel": np.zeros((3, 3, 4, 5), np.float32),
        "params/backbone/fc6/bias": SMALL["fc6"][1],
    }
    expected["params/backbone/conv1_1/kernel"][rows, columns, ins, out] = SMALL["conv1_1"][0]
    for feature in range(5):
        for place, value in enumerate(SMALL["fc6"][0][feature]):
            channel, row, column = np.unravel_index(place, (4, 3, 3))
            expected["params/backbone/fc6/kernel"][row, column, channel, feature] = value
    assert weights.unknown == ("fc8",)
    assert weights.input == CAFFE_INPUT
    assert weights.origin == "net.caffemodel (Caffe, net toy)"
    chex.assert_trees_all_equal_shapes_and_dtypes(weights.arrays, expected)
    chex.assert_trees_all_equal(weights.arrays, expected)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("form", [{"v1": True, "legacy": True}, {"packed": False}, {"v1": True}, {"legacy": True}])
def test_opencv_reads_every_form_as_well(form, tmp_path):
    """So the tests' files are what Caffe writes, not only what is read here. (OpenCV reads no doubles.)"""
    net = caffe_peer.Net(data=3)
    net.conv("conv1_1", "data", 4, 3, relu=False)
    net.add("upscore", "Deconvolution", "conv1_1", num_output=4, kernel_size=4, stride=2, bias_term=False)
    weights, inputs = net.random_weights(), {"data": np.ones((1, 3, 9, 8), np.float32)}
    content = caffe_peer.caffemodel(net, weights, "toy", **form)
    text = caffe_peer.prototxt(net, inputs)
    got = caffe_peer.run_opencv(caffe_peer.opencv_python(), tmp_path, text, content, inputs, ["upscore"])
    np.testing.assert_allclose(got["upscore"], caffe_peer.run_torch(net, weights, inputs)["upscore"], atol=1e-4)


def test_fields_that_do_not_matter_are_passed_over(tmp_path):
    extra = caffe_peer.field(5, 1) + caffe_peer.field(8, b"shapes")
    double = caffe_peer.field(100, caffe_peer.field(7, caffe_peer.blob(np.ones(2, np.float32))) + b"\x5d1234")
    weights = read(tmp_path, extra + caffe_peer.caffemodel(None, SMALL) + double)
    assert set(weights.unknown) == {"fc8", ""}
    assert weights.origin == "net.caffemodel (Caffe)"


@pytest.mark.peers
def test_a_classifiers_fully_connected_layers_are_convolutions(tmp_path):
    net = caffe_peer.caffenet()
    blobs = net.random_weights()
    weights = read(tmp_path, caffe_peer.caffemodel(net, blobs, "CaffeNet", v1=True, legacy=True))
    assert weights.unknown == ("fc8",)
    image = np.random.default_rng(1).normal(0, 50, (1, 3, 227, 227)).astype(np.float32)
    tops = caffe_peer.run_torch(net, blobs, {"data": image})
    x = jnp.asarray(tops["pool5"].transpose(0, 2, 3, 1))
    assert x.shape[1:3] == (6, 6)
    for name in ("fc6", "fc7"):
        kernel, bias = (weights.arrays[f"params/backbone/{name}/{part}"] for part in ("kernel", "bias"))
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = x + bias[None, None, None]
        np.testing.assert_allclose(x[0, 0, 0], tops[name][0, :, 0, 0], rtol=1e-4, atol=1e-3)
        x = jax.nn.relu(x)


@pytest.mark.peers
def test_googlenet_computes_what_caffes_does(tmp_path):
    net = caffe_peer.googlenet()
    blobs = net.random_weights()
    weights = read(tmp_path, caffe_peer.caffemodel(net, {**blobs, **drawn(**{"loss3/classifier": (9, 1024)})}))
    assert weights.unknown == ("loss3/classifier",)
    image = np.random.default_rng(1).normal(0, 50, (1, 3, 83, 118)).astype(np.float32)
    tops = caffe_peer.run_torch(net, blobs, {"data": image})
    model, x = GoogLeNet(padding="reference"), FeatureMap(jnp.asarray(image.transpose(0, 2, 3, 1)))
    variables = {
        "params": traverse_util.unflatten_dict(
            {path.removeprefix("params/backbone/"): value for path, value in weights.arrays.items()}, sep="/"
        )
    }
    chex.assert_trees_all_equal_shapes(variables, jax.eval_shape(model.init, jax.random.key(0), x))
    for got, block in zip(jax.jit(model.apply)(variables, x), ("3b", "4e", "5b"), strict=True):
        expected = tops[f"inception_{block}/output"].transpose(0, 2, 3, 1)
        assert np.abs(got.values - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.peers
def test_one_deconvolution_kernel_a_class_is_one_of_all_classes(torch, tmp_path):
    """Nets with `group: num_output` in their upsampling have kernels [classes, 1, h, w]."""
    kernel = drawn(upscore=(3, 1, 4, 4))
    weights = read(tmp_path, caffe_peer.caffemodel(None, kernel))
    x = np.random.default_rng(1).standard_normal((1, 3, 5, 6)).astype(np.float32)
    expected = torch.nn.functional.conv_transpose2d(*map(torch.from_numpy, (x, *kernel["upscore"])), stride=2, groups=3)
    got = conv_transpose(x.transpose(0, 2, 3, 1), weights.arrays["params/upscore/kernel"], 2, 0)
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected, atol=1e-5)


NYUD_SCORES = {"score_fr": (40, 5, 1, 1)}
# The means of the reference's nyud_layers.py.
NYUD_MEAN, HHA_MEAN = (116.190, 97.203, 92.318), (132.431, 94.076, 118.477)


@pytest.mark.parametrize(
    ("name", "shapes", "expected"),
    [
        ("fcn8s.caffemodel", {"score_fr": (21, 5, 1, 1)}, CAFFE_INPUT),
        ("siftflow.caffemodel", {"score_fr_sem": (33, 5, 1, 1), "score_fr_geo": (3, 5, 1, 1)}, caffe.SIFTFLOW_INPUT),
        ("nyud-color.caffemodel", NYUD_SCORES, caffe.NYUD_INPUT),
        ("nyud-fcn32s-hha-heavy.caffemodel", NYUD_SCORES, caffe.HHA_INPUT),
        (
            "nyud-color-d.caffemodel",
            {"conv1_1_bgrd": (4, 4, 3, 3), **NYUD_SCORES},
            InputConfig("bgr", (*NYUD_MEAN, 7.844), (1.0,) * 4, (3,), (("colour", 3), ("depth", 1)), "uint16"),
        ),
        (
            "late.caffemodel",
            {"conv1_1color": (4, 3, 3, 3), "conv1_1hha": (4, 3, 3, 3)},
            InputConfig("bgr", (*NYUD_MEAN, *HHA_MEAN), (1.0,) * 6, channels=(("colour", 3), ("hha", 3))),
        ),
    ],
)
def test_the_input_is_that_of_the_data_set(name, shapes, expected, tmp_path):
    assert read(tmp_path, caffe_peer.caffemodel(None, drawn(**shapes)), name).input == expected


def test_two_heads_become_one_with_the_classes_of_both(tmp_path):
    """Whatever their order in the file; nothing of one goes into the other."""
    shapes = {"score_fr_geo": [(2, 5, 1, 1), (2,)], "score_fr_sem": [(3, 5, 1, 1), (3,)]}
    blobs = drawn(**shapes, upscore2_sem=(3, 3, 4, 4), upscore2_geo=(2, 2, 4, 4))
    arrays = read(tmp_path, caffe_peer.caffemodel(None, blobs)).arrays
    np.testing.assert_array_equal(
        arrays["params/score_fr/bias"], [*blobs["score_fr_sem"][1], *blobs["score_fr_geo"][1]]
    )
    np.testing.assert_array_equal(arrays["params/score_fr/kernel"][0, 0, :, 3:].T, blobs["score_fr_geo"][0][:, :, 0, 0])
    kernel = arrays["params/upscore2/kernel"]
    assert kernel.shape == (4, 4, 5, 5)
    assert not kernel[:, :, 3:, :3].any()
    assert not kernel[:, :, :3, 3:].any()
    assert kernel[0, 0, 4, 3] == blobs["upscore2_geo"][0][1, 0, 3, 3]


def test_damaged_files_are_refused_or_read_never_a_crash(tmp_path):
    """Every bit of everything but the numbers, turned one at a time: lengths, keys, shapes, names."""
    blobs = {name: [np.zeros_like(value[0])] for name, value in SMALL.items()}
    content = bytearray(caffe_peer.caffemodel(None, blobs))
    refused = 0
    structure = [at for at in range(len(content)) if any(content[max(0, at - 2) : at + 3])]
    for at in structure:
        for bit in range(8):
            content[at] ^= 1 << bit
            try:
                read(tmp_path, bytes(content))
            except InputError:
                refused += 1
            content[at] ^= 1 << bit
    assert refused > len(structure) * 4


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        (drawn(res2a_branch1=(4, 3, 1, 1)), r"none of the layers .*\(res2a_branch1, ...\) belongs to VGG"),
        (
            drawn(conv1_1=[(4, 3, 3, 3), (4,), (4,)]),
            r"shapes \[4, 3, 3, 3\], \[4\], \[4\]; a convolution has",
        ),
        (drawn(conv1_1=[(4, 3, 3, 3), (3,)]), r"'conv1_1' .* has blobs of the shapes"),
        (drawn(conv5_3=(4, 3, 3, 3), fc6=(7, 4 * 3)), "has 12 inputs, which is no square map of 4 channels"),
        (drawn(fc6=(7, 12)), "has 12 inputs, which is no square map of 0 channels"),
        (
            drawn(score_fr_sem=(4, 3, 1, 1), score_fr_geo=(2, 5, 1, 1)),
            r"score_fr_sem \[4, 3, 1, 1\], score_fr_geo \[2, 5, 1, 1\]; on one trunk only their classes differ",
        ),
        (drawn(upscore_sem=(4, 4, 4, 4), upscore_geo=(2, 2, 8, 8)), "on one trunk only their classes differ"),
        (drawn(upscore=(256, 1, 2, 2)), r"n <= 255, and no bias"),
        (drawn(conv5_3=(1,) * 33), "a blob has 33 axes"),
        (drawn(conv5_3=(4, 3, 3)), r"'conv5_3' .* has blobs of the shapes"),
        (drawn(upscore=(4, 3, 3, 3)), r"'upscore' .*\[4, 3, 3, 3\]; a deconvolution of n channels to n"),
        (drawn(upscore=[(4, 4, 3, 3), (4,)]), "and no bias"),
        (
            {**drawn(score_pool4=(3, 2, 1, 1)), "scale_pool4": [np.full(2, 0.02, np.float32)]},
            r"scales by \[0\.02 0\.02\] .* must be 0\.01",
        ),
    ],
)
def test_layers_of_other_shapes_than_their_names_say_are_refused(blobs, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, caffe_peer.caffemodel(None, blobs))


def test_a_layer_that_is_there_twice_is_refused(tmp_path):
    content = caffe_peer.caffemodel(None, SMALL)
    with pytest.raises(InputError, match="has layer 'conv1_1' twice"):
        read(tmp_path, content + content)
