"""Probabilities against JAX's softmax, and coarse scores against those of an image without a canvas."""

import jax
import numpy as np
from random_network import draw_network_variables
from random_variables import draw_images
from small_runs import NORMED

from fcn_jax.data.dataset import Example
from fcn_jax.inference.explain.heat_maps import (
    MOST_CLASSES,
    choose_classes,
    compute_probabilities,
    draw_coarse_output,
    is_classifier,
    make_coarse_scores,
)
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s, FCN32s


def test_probabilities():
    logits = np.random.default_rng(0).normal(0, 30, (4, 5, 6)).astype(np.float32)
    logits[0, 0] = 1e4, 0, 0, 0, 0, 0
    np.testing.assert_allclose(compute_probabilities(logits), jax.nn.softmax(logits, axis=-1), atol=1e-6)


def test_the_most_frequent_classes_are_chosen():
    label = np.array([[3, 3, 3, 255, 255, 255, 255]], np.uint8)
    prediction = np.array([[1, 1, 5, 5, 1, 1, 2]], np.uint8)
    assert choose_classes(label, prediction) == [1, 3, 5, 2]
    many = np.arange(40, dtype=np.uint8)[None]
    assert choose_classes(many, many) == list(range(MOST_CLASSES))


def test_only_the_coarsest_stream_makes_a_classifier():
    assert is_classifier(FCN32s(3))
    assert not is_classifier(FCN8s(3))
    assert not is_classifier(DilatedFCN(3))


def test_coarse_scores_upsampled_are_the_logits():
    """The scores of the image's cells are those of the image alone: its score layer's output times its kernel."""
    model = FCN32s(3, NORMED)
    variables = draw_network_variables(model)
    image = draw_images(1, 70, 90)
    canvas = np.pad(image, ((0, 0), (0, 26), (0, 6), (0, 0)))
    scores, (rows, columns) = jax.jit(make_coarse_scores(model))(variables, canvas, np.array([[70, 90]], np.int32))
    # Convolutions of kernels 8, 2, 2, which are their strides, with a border of half a kernel: n -> n // s + 1.
    assert (rows, columns) == (((70 // 8 + 1) // 2 + 1) // 2 + 1, ((90 // 8 + 1) // 2 + 1) // 2 + 1)
    _, state = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"], capture_intermediates=True))(
        variables, image
    )
    expected = np.asarray(state["intermediates"]["score_fr"]["__call__"][0][0])
    assert expected.shape == (rows, columns, 3)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(scores[:rows, :columns], expected, atol=1e-5 * np.abs(expected).max())


def test_the_coarse_output_has_a_rectangle_for_each_cell():
    scores = np.zeros((2, 3, 2), np.float32)
    scores[1, 2, 1] = 5
    palette = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)
    example = Example("a", np.full((64, 96, 3), 77, np.uint8), np.zeros((64, 96), np.uint8))
    figure = draw_coarse_output(example, scores, ("ground", "disc"), palette)
    rows, columns = np.nonzero((figure.picture == palette[1]).all(axis=-1))
    ground = np.nonzero((figure.picture == palette[0]).all(axis=-1))
    assert abs(len(rows) * 5 - len(ground[0])) < 0.03 * len(ground[0])
    assert rows.min() > ground[0].min()
    assert columns.max() == ground[1].max()
    assert "2 x 3 windows" in figure.caption
    assert "disc" in figure.alt
