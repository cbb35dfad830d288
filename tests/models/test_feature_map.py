"""Feature maps: windows over images on a canvas, and maps that cannot be combined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_variables import draw_images

from fcn_jax.models.feature_map import FeatureMap, add, concatenate, convolve, pool


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (7, 2, 3), (1, 2, 0), (3, 1, 100), (7, 1, 0)])
def test_convolution_of_a_sized_map_is_that_of_each_image(kernel, stride, padding):
    conv = nn.Conv(2, (kernel, kernel), stride, padding=padding)
    sizes = np.array([(7, 9), (12, 8)], np.int32)
    x = FeatureMap(jnp.asarray(draw_images(2, 12, 12)), jnp.asarray(sizes))
    variables = conv.init(jax.random.key(0), x.values)
    y = nn.apply(lambda m, x: convolve(m, x), conv)(variables, x)
    for index, (height, width) in enumerate(sizes):
        alone = conv.apply(variables, x.values[index : index + 1, :height, :width])
        assert tuple(y.size[index]) == alone.shape[1:3]
        np.testing.assert_allclose(
            y.values[index : index + 1, : alone.shape[1], : alone.shape[2]], alone, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(("window", "stride", "padding", "ceil"), [(2, 2, 0, True), (3, 2, 1, False), (3, 2, 0, True)])
def test_pooling_of_a_sized_map_is_that_of_each_image(window, stride, padding, ceil):
    sizes = np.array([(7, 9), (12, 8), (3, 4), (5, 6)], np.int32)
    x = FeatureMap(jnp.asarray(draw_images(4, 12, 12)) - 5, jnp.asarray(sizes))
    y = pool(x, window, stride, padding, ceil=ceil)
    for index, (height, width) in enumerate(sizes):
        alone = pool(FeatureMap(x.values[index : index + 1, :height, :width]), window, stride, padding, ceil=ceil)
        assert tuple(y.size[index]) == alone.shape
        np.testing.assert_array_equal(y.values[index : index + 1, : alone.shape[0], : alone.shape[1]], alone.values)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (6, 1, 100)])
def test_a_part_of_an_image_has_the_cells_of_the_whole_image(kernel, stride, padding):
    """Except those that reach over a cut border; cells beyond the image are cleared in both."""
    conv = nn.Conv(2, (kernel, kernel), stride, padding=padding)
    whole = FeatureMap(jnp.asarray(draw_images(1, 40, 44)), jnp.array([(37, 39)]))
    part = FeatureMap(whole.values[:, 8:32, 16:], whole.size, origin=jnp.array([(8, 16)]))
    variables = conv.init(jax.random.key(0), whole.values)

    def compute(x):
        return pool(nn.apply(convolve, conv)(variables, x), 3, 2, 1)

    y, z = compute(part), compute(whole)
    assert (z.reach, z.coarsest) == ((kernel - 1) / 2 + stride, 2 * stride)
    assert y.origin.tolist() == [[8 // z.coarsest, 16 // z.coarsest]]
    np.testing.assert_array_equal(y.size, z.size)

    def keep(length, first, last):
        """Cells of the part along an axis whose windows end before the borders that were cut."""
        centres = y.offset + y.stride * np.arange(length)
        return np.flatnonzero((centres >= first + y.reach) & (centres <= last - y.reach))

    rows, columns = keep(y.shape[0], 0, 23), keep(y.shape[1], 0, np.inf)
    assert len(rows) > 2
    (top, left), values = y.origin[0], z.clear_outside()
    columns = columns[columns + left < z.shape[1]]
    np.testing.assert_allclose(
        y.clear_outside()[0][np.ix_(rows, columns)], values[0][np.ix_(rows + top, columns + left)], atol=1e-5
    )


def test_maps_that_are_joined_reach_as_far_as_each():
    x = FeatureMap(jnp.ones((1, 4, 4, 1)), stride=4, reach=10.0, coarsest=16)
    y = FeatureMap(jnp.ones((1, 4, 4, 1)), stride=4, reach=12.5, coarsest=4)
    for joined in (add(x, y), add(y, x), concatenate([x, y]), concatenate([y, x])):
        assert (joined.reach, joined.coarsest) == (12.5, 16)
    assert concatenate([x, y]).values.shape == (1, 4, 4, 2)


@pytest.mark.parametrize(
    ("options", "got"), [({"strides": (1, 2), "padding": 1}, r"\(1, 2\)"), ({"padding": "SAME"}, "'SAME'")]
)
def test_layers_without_one_geometry_are_refused(options, got):
    x = FeatureMap(jnp.zeros((1, 8, 8, 3)))
    conv = nn.Conv(2, (3, 3), **options)
    with pytest.raises(ValueError, match=f"same on both axes and sides.*got {got}"):
        nn.apply(lambda m, x: convolve(m, x), conv)(conv.init(jax.random.key(0), x.values), x)


def test_values_outside_the_images_are_cleared():
    values = draw_images(2, 3, 4)
    x = FeatureMap(jnp.asarray(values), jnp.array([(2, 4), (3, 1)]))
    values[0, 2:] = values[1, :, 1:] = -7
    np.testing.assert_array_equal(x.clear_outside(fill=-7.0), values)


def test_maps_on_different_grids_are_not_added():
    x = FeatureMap(jnp.zeros((1, 4, 4, 1)), stride=2, offset=0.25)
    for other in (x.replace(offset=0.5), x.replace(stride=4), x.replace(values=jnp.zeros((1, 4, 3, 1)))):
        with pytest.raises(ValueError, match=r"one grid.*upsample the coarser"):
            add(x, other)
