"""What networks are given: images, sizes and attributes that do not fit are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fcn_jax.models.arguments import check_choice, check_dtype, check_num_classes, check_skip_scales, read_images
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN
from fcn_jax.models.reference import LateFusion

IMAGES = np.zeros((2, 8, 9, 3), np.float32)


def init(model, images=IMAGES, size=None):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, size))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], r"images have the shape \(8, 9, 3\);.*for one image give images\[None\]"),
        (IMAGES[0, 0], r"images have the shape \(9, 3\);.*\[batch, height, width, channels\]"),
        (IMAGES[:, :0], r"images have the shape \(2, 0, 9, 3\);.*must be at least 1"),
        (IMAGES[..., :0], r"images have the shape \(2, 8, 9, 0\);.*must be at least 1"),
        (IMAGES.astype(np.uint8), r"images are uint8;.*floating point.*subtract the mean"),
        (IMAGES > 0, r"images are bool;.*floating point"),
        (IMAGES.astype(np.complex64), r"images are complex64;.*floating point"),
        ([IMAGES[0], IMAGES[0, :4]], r"images is of type list; it must be one array"),
        ("cat.jpg", r"images is of type str; it must be one array"),
        (None, r"images is of type NoneType; it must be one array"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        read_images(images, None)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (np.ones((2, 2), np.float32), r"size is float32\[2, 2\]; it must be integers \[batch, 2\].* 2 images"),
        (np.ones((1, 2), np.int32), r"size is int32\[1, 2\]"),
        ((8, 9), r"size is int32\[2\]"),
        ("8x9", r"size is of type str"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        read_images(IMAGES, size)


def test_an_origin_needs_a_size_and_must_fit():
    pairs = np.zeros((2, 2), np.int32)
    with pytest.raises(ValueError, match="origin is given without size; give the rows and columns of each whole image"):
        read_images(IMAGES, None, pairs)
    with pytest.raises(ValueError, match=r"origin is int32\[1, 2\]; it must be integers \[batch, 2\]"):
        read_images(IMAGES, pairs, pairs[:1])
    np.testing.assert_array_equal(read_images(IMAGES, pairs, pairs + 32).origin, pairs + 32)


def test_images_and_sizes_of_any_origin_are_read():
    image = read_images(list(IMAGES), [[8, 9], [1, 2]])
    assert (image.values.shape, image.size.tolist(), image.stride) == ((2, 8, 9, 3), [[8, 9], [1, 2]], 1)
    assert read_images(IMAGES[:0], None).values.shape == (0, 8, 9, 3)
    traced = jax.eval_shape(read_images, IMAGES.astype(jnp.bfloat16), np.ones((2, 2), np.int32))
    assert traced.size.shape == (2, 2)


@pytest.mark.parametrize("model", [FCN(3), DilatedFCN(3), LateFusion(FCN(3), streams=(("one", 3),))])
def test_networks_check_their_images(model):
    with pytest.raises(ValueError, match=r"images have the shape \(2, 0, 9, 3\)"):
        init(model, IMAGES[:, :0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FCN(0), "num_classes is 0; it must be an integer of at least 1"),
        (FCN(3, stride=4), "stride is 4; it must be one of 8, 16, 32"),
        (FCN(3, "resnet35"), "backbone is 'resnet35'; it must be one of 'vgg16', .*'resnet34', 'resnet50'"),
        (FCN(3, dtype=int), "dtype is <class 'int'>; it must be a floating-point type"),
        (FCN(3, skip_scales=(1.0, np.nan)), r"skip_scales are \(1.0, nan\); they must be two finite factors"),
        (FCN(3, VGG(depths=(1, 1, 1))), r"depths are \(1, 1, 1\); they must be 5 integers of at least 1"),
        (FCN(3, VGG(fc_kernel=4)), "fc_kernel is 4; it must be odd"),
        (FCN(3, ResNet(depths=(1, 1, 0, 1))), r"depths are \(1, 1, 0, 1\); they must be 4 integers"),
        (DilatedFCN(0), "num_classes is 0; it must be an integer of at least 1"),
        (DilatedFCN(3, dtype=int), "dtype is <class 'int'>; it must be a floating-point type"),
        (
            LateFusion(FCN(3)),
            "images have 3 channels; they must have 6, those of the streams one after the other: colour 3, hha 3",
        ),
    ],
)
def test_attributes_with_other_values_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        init(model)


def test_other_choices_are_refused():
    check_choice("padding", "same", ("same", "reference"))
    with pytest.raises(ValueError, match="padding is 'valid'; it must be one of 'same', 'reference'"):
        check_choice("padding", "valid", ("same", "reference"))


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True])
def test_a_number_of_classes_is_an_integer(value):
    with pytest.raises(ValueError, match=f"num_classes is {value!r}; it must be an integer of at least 1"):
        check_num_classes(value)


@pytest.mark.parametrize("value", ["float33", "int8", None, jnp.complex64])
def test_a_computation_has_a_floating_point_type(value):
    check_dtype("bfloat16")
    if value is not None:  # NumPy's name for float64
        with pytest.raises(ValueError, match="it must be a floating-point type"):
            check_dtype(value)


@pytest.mark.parametrize("kind", ["uint8", "uint32", "int16", "int64"])
def test_sizes_of_any_integer_type_are_signed(kind):
    """The network negates them."""
    read = read_images(IMAGES, np.array([[8, 9], [3, 4]], kind))
    assert read.size.dtype == np.int32
    np.testing.assert_array_equal(read.size, [[8, 9], [3, 4]])


def test_attributes_of_other_types_are_refused():
    with pytest.raises(
        ValueError, match="tasks are 3; they must be a tuple of integers, the number of classes of each"
    ):
        check_num_classes(3, 3)
    with pytest.raises(ValueError, match=r"skip_scales are \('a', 'b'\); they must be two finite factors"):
        check_skip_scales(("a", "b"))
