"""The names and values that other projects rely on, written as a user writes them."""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcn_jax
from fcn_jax import FCN, FCN8s, FCN16s, FCN32s, Segmenter
from fcn_jax.layers import (
    ConvTranspose,
    bilinear_init,
    bilinear_kernel,
    conv_transpose,
    conv_transpose_size,
    upsample_bilinear,
)

INSTALLED = str(Path(sys.executable).with_name("fcn-jax"))


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


# ------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("network", [FCN8s, FCN16s, FCN32s])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 50)])
def test_networks_give_a_score_a_pixel_and_class(network, height, width):
    model = network(num_classes=21, backbone="resnet34")
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key, images)
    assert set(variables) == {"params", "batch_stats"}

    logits = jax.eval_shape(model.apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, height, width, 21), jnp.float32)

    def train(variables, images, key):
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    logits, updates = jax.eval_shape(train, variables, images, key)
    assert logits.shape == (2, height, width, 21)
    assert jax.tree.structure(updates) == jax.tree.structure({"batch_stats": variables["batch_stats"]})


def test_networks_are_fcns_and_flax_modules():
    for network in (FCN8s, FCN16s, FCN32s):
        assert isinstance(network(num_classes=2, backbone="resnet34"), FCN)
    assert issubclass(FCN, nn.Module)


def test_each_name_is_listed_and_an_unknown_one_is_refused():
    assert {"FCN", "FCN8s", "FCN16s", "FCN32s", "Segmenter"} <= set(fcn_jax.__all__)
    assert all(callable(getattr(fcn_jax, name)) for name in fcn_jax.__all__)
    with pytest.raises(AttributeError, match="FCN64s"):
        fcn_jax.FCN64s  # noqa: B018


def test_segmenter_is_made_of_a_run(tmp_path):
    with pytest.raises(fcn_jax.errors.InputError, match=str(tmp_path)):
        Segmenter.from_run(str(tmp_path))


# -------------------------------------------------------------------------------------------------------- layers


def test_bilinear_kernel_is_upsample_filt_of_the_reference():
    want = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    kernel = bilinear_kernel(4)
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, want)


def test_conv_transpose_size_takes_integers_and_a_value_an_axis():
    assert conv_transpose_size(16, 64, 32, 16) == (16 - 1) * 32 - 2 * 16 + 64 == 512
    assert conv_transpose_size(5, 3, 2, 1, 1) == (5 - 1) * 2 - 2 * 1 + 3 + 1
    assert conv_transpose_size((16, 5), (64, 3), (32, 2), (16, 1), (0, 1)) == (512, 10)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv_transpose_layer_has_the_parameters_and_results_of_flax(padding):
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 3))
    ours, theirs = (layer(6, (4, 3), (2, 3), padding=padding) for layer in (ConvTranspose, nn.ConvTranspose))
    variables = ours.init(jax.random.key(0), x)
    assert variables["params"].keys() == {"kernel", "bias"}
    jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(0), x))
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_integers_crop_the_output_of_the_conv_transpose_layer():
    x = jax.random.normal(jax.random.key(1), (1, 3, 2, 21))
    cropped = ConvTranspose(features=21, kernel_size=(64, 64), strides=(32, 32), padding=16)
    whole = ConvTranspose(features=21, kernel_size=(64, 64), strides=(32, 32), padding="VALID")
    variables = cropped.init(jax.random.key(0), x)
    y = cropped.apply(variables, x)
    assert y.shape == (1, 96, 64, 21)
    np.testing.assert_allclose(y, whole.apply(variables, x)[:, 16:-16, 16:-16], atol=1e-5)


def test_groups_divide_the_inputs_of_the_conv_transpose_kernel():
    layer = ConvTranspose(8, (3, 2), feature_group_count=4)
    variables = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 5, 5, 12), jnp.float32))
    assert variables["params"]["kernel"].shape == (3, 2, 12 // 4, 8)


@pytest.mark.parametrize("stride", [2, 3])
def test_upsample_bilinear_is_the_conv_transpose_that_starts_bilinear(stride):
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    size = 2 * stride - stride % 2
    kernel = bilinear_init(None, (size, size, 3, 3))
    np.testing.assert_array_equal(kernel[..., 0, 0], bilinear_kernel(size))
    want = conv_transpose(x, kernel, stride, (size - stride) // 2)
    np.testing.assert_allclose(upsample_bilinear(x, stride), want, atol=1e-5)


# -------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("program", [[INSTALLED], [sys.executable, "-m", "fcn_jax"]], ids=["script", "module"])
def test_help_names_each_command(program):
    text = run(*program, "--help")
    for command in ("train", "eval", "predict", "data", "weights"):
        assert f" {command} " in text


def test_training_has_a_preset_each_and_the_documented_flags():
    text = run(INSTALLED, "train", "--help")
    for preset in ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce"):
        assert preset in text
    text = run(INSTALLED, "train", "fcn8s", "--help")
    for flag in (
        "--run-dir", "--steps", "--batch-size", "--seed", "--eval-every", "--checkpoint-every", "--data.name",
        "--data.dir", "--data.cache", "--model.backbone", "--model.weights", "--optim.learning-rate",
    ):  # fmt: skip
        assert f"{flag} " in text


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("eval", ["--split", "--data.dir", "--json"]),
        ("predict", ["--out"]),
        ("data prepare", ["--dir"]),
        ("data check", ["--dir"]),
        ("weights import", ["--out"]),
    ],
)
def test_commands_have_the_documented_flags(command, flags):
    text = run(INSTALLED, *command.split(), "--help")
    for flag in flags:
        assert f"{flag} " in text


def test_data_list_says_what_there_is():
    text = run(INSTALLED, "data", "list")
    for name in ("shapes", "voc2012", "camvid", "folder"):
        assert name in text
