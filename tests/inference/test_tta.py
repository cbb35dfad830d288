"""Test-time augmentation, compared with its definition in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from random_network import examples, network

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import AREA, make_forward
from fcn_jax.inference.tiles import plan_tiles
from fcn_jax.inference.tta import FLIP_AND_SCALES, Views, _group, resize_image, segment_views


def bilinear_weights(old: int, new: int) -> np.ndarray:
    """The weight of each old pixel for each new one, [new, old]: a triangle, wider where the image becomes smaller."""
    step = old / new
    centres = (np.arange(new) + 0.5) * step
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(step, 1)
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = bilinear_weights(values.shape[0], height), bilinear_weights(values.shape[1], width)
    return np.einsum("ij,kl,jlc->ikc", rows, columns, values.astype(np.float64))


@functools.cache
def forward():
    return make_forward(network()[0], InputConfig(), labelled=False, probabilities=True)


@functools.cache
def apply_network():
    model, variables = network()
    return jax.jit(lambda image: jax.nn.softmax(model.apply(variables, normalise(image[None], InputConfig()))[0]))


@pytest.mark.parametrize(("height", "width"), [(30, 38), (60, 75), (40, 50), (1, 90)])
def test_images_are_resized_by_a_triangle_filter(height, width):
    image = examples()[0].image
    assert image.shape == (40, 50, 3)
    # Pillow rounds to whole levels after each axis.
    np.testing.assert_allclose(resize_image(image, height, width), resize(image, height, width), atol=1.01)


@pytest.mark.parametrize("tile", [0, pytest.param(32, marks=pytest.mark.slow)])
def test_probabilities_are_the_mean_over_the_views_at_the_image_s_size(tile):
    model, variables = network()
    image = examples()[0].image if tile == 0 else np.tile(examples()[0].image, (2, 7, 1))
    example = examples()[0]._replace(image=image, label=np.zeros(image.shape[:2], np.uint8))
    members = [example, *examples()[1:3]]
    views = Views(scales=(0.75, 1.0, 1.3), flip=True)
    results = segment_views(forward(), variables, members, 8, views, plan_tiles(model, tile))
    found = {result.example.name: result for result in results}
    assert set(found) == {member.name for member in members}
    for member in members:
        height, width = member.label.shape
        total = np.zeros((height, width, 4))
        for scale in views.scales:
            size = max(1, round(scale * width)), max(1, round(scale * height))
            small = np.asarray(Image.fromarray(member.image).resize(size, Image.Resampling.BILINEAR))
            total += resize(np.asarray(apply_network()(jnp.asarray(small))), height, width)
            mirrored = np.asarray(apply_network()(jnp.asarray(small[:, ::-1])))
            total += resize(mirrored[:, ::-1], height, width)
        result = found[member.name]
        assert result.example is member
        assert result.probabilities.dtype == np.float16
        np.testing.assert_allclose(result.probabilities, total / 6, atol=1e-3)
        best = np.sort(total, axis=-1)
        clear = best[..., -1] - best[..., -2] > 6e-3
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(result.class_map[clear], total.argmax(-1)[clear])
    # Without the mirror images and scales the result is another one.
    assert np.abs(found[example.name].probabilities - np.asarray(apply_network()(jnp.asarray(image)))).max() > 0.05


def test_groups_are_bounded_by_their_pixels_and_keep_the_order():
    members = examples()  # of 2000, 2112, 1, 2112, 2400, 2000, 620, 4096, 3600, 448 and 25 pixels
    groups = list(_group(members, 4000))
    assert [len(group) for group in groups] == [2, 3, 3, 2, 1]
    assert [example for group in groups for example in group] == members
    assert list(_group([], AREA)) == []


def test_the_switch_means_mirror_images_and_three_scales():
    assert Views(scales=(0.75, 1.0, 1.25), flip=True) == FLIP_AND_SCALES
    assert Views() == Views(scales=(1.0,), flip=False)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("inf"),), (float("nan"),)])
def test_scales_must_be_above_0(scales):
    with pytest.raises(InputError, match=r"scales are \(.*\); give at least one factor, each above 0 and finite"):
        Views(scales=scales)


def test_a_scale_counts_once():
    with pytest.raises(InputError, match=r"scales are \(1.0, 1.0\); give each factor once"):
        Views(scales=(1.0, 1.0))
