"""Dense layers as convolutions, and shift-and-stitch, against what they replace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_loops import assert_close, draw, export_for_every_size

from fcn_jax.layers import convolutionalize, shift_and_stitch

ONE = np.ones((1, 4, 4, 2), np.float32)


@pytest.mark.parametrize("order", ["hwc", "chw"])
def test_convolutionalized_classifier_gives_its_scores_at_every_window(order):
    image, dense = draw(5, 6, 4), draw(3 * 2 * 4, 7, seed=1)
    kernel = convolutionalize(dense, (3, 2), order)
    names = ("NHWC", "HWIO", "NHWC")
    scores = jax.lax.conv_general_dilated(image[None], kernel, (1, 1), "VALID", dimension_numbers=names)
    for i, j in np.ndindex(3, 5):
        window = image[i : i + 3, j : j + 2]
        assert_close(scores[0, i, j], (window if order == "hwc" else window.transpose(2, 0, 1)).ravel() @ dense)


@pytest.mark.parametrize("size", [(14, 16), (15, 19)])
def test_stitched_scores_are_those_of_dilated_filters(size):
    """A network of stride 2 x 3: convolution, strided convolution, convolution; or without stride, then dilated."""
    first, second, third = draw(2, 3, 2, 3), draw(3, 2, 3, 3, seed=1), draw(2, 2, 3, 2, seed=2)

    def convolve(x, kernel, strides=(1, 1), dilation=(1, 1)):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", rhs_dilation=dilation, dimension_numbers=names)

    def coarse(x):
        return convolve(jnp.tanh(convolve(jnp.tanh(convolve(x, first)), second, (2, 3))), third)

    def dense(x):
        return convolve(jnp.tanh(convolve(jnp.tanh(convolve(x, first)), second)), third, dilation=(2, 3))

    x = jnp.asarray(draw(2, *size, 2))
    want = dense(x)
    got = jax.jit(lambda x: shift_and_stitch(coarse, x, (2, 3)))(x)
    cells = coarse(x).shape[1:3]
    assert got.shape == (2, cells[0] * 2, cells[1] * 3, 2)
    common = tuple(slice(0, min(a, b)) for a, b in zip(got.shape[1:3], want.shape[1:3], strict=True))
    assert_close(got[:, *common], want[:, *common])
    np.testing.assert_allclose(got[:, ::2, ::3], coarse(x), atol=1e-5)
    assert min(s.stop - (c - 1) * t for s, c, t in zip(common, cells, (2, 3), strict=True)) >= 1  # up to the last cell


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolutionalize(np.ones((7, 2)), 2), r"\(7, 2\); for the window \(2, 2\).*multiple of 4"),
        (lambda: convolutionalize(np.ones((8, 2)), 2, "cwh"), "order is 'cwh'.*'hwc'.*'chw'"),
        (lambda: shift_and_stitch(lambda v: v, ONE[0, 0], 2), r"x has the shape \(4, 2\)"),
        (lambda: shift_and_stitch(lambda v: v.sum(), ONE, 2), r"the net gives .*shape=\(\).* must give one array"),
        (lambda: shift_and_stitch(lambda v: (v, v), ONE, 2), r"the net gives \(.* must give one array"),
        (lambda: shift_and_stitch(lambda v: v, ONE, 2), r"gives \(4, 4\) cells.*give the net's total stride"),
        (
            lambda: export_for_every_size(lambda x: shift_and_stitch(lambda v: v, x, 2)),
            "numbers of at least 1 as height and width",
        ),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
