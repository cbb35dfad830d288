"""The figures that apply to each network, and what they cost."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_network import CLASSES, draw_network_variables, examples, network
from small_runs import NORMED, Tiny

from fcn_jax.config import InputConfig
from fcn_jax.data.dataset import Example
from fcn_jax.inference.explain.field_figure import draw_field
from fcn_jax.inference.explain.figure import GAP, WIDTH, Figure, Panel, colour_shares, colour_signed, draw_grid, to_grey
from fcn_jax.inference.explain.figures import LARGEST, MOST_EXAMPLES, cut_middle, draw_explanations
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN8s, FCN32s

NAMES = ("ground", "disc", "square", "a class with a name that is much longer than a column of the figure is wide")
PALETTE = np.array([[0, 0, 0], [200, 10, 30], [0, 255, 1], [9, 8, 255]], np.uint8)
STREAM_TITLES = ["Detail by stream", "What each skip adds"]


def draw(model, variables, count: int = 2) -> list[Figure]:
    assert len(NAMES) == CLASSES
    return draw_explanations(model, variables, InputConfig(), examples()[:count], NAMES, PALETTE)


def check(figures: list[Figure], titles: list[str]) -> None:
    assert [figure.title for figure in figures] == titles
    for figure in figures:
        assert figure.picture.dtype == np.uint8
        assert figure.picture.shape[1] <= WIDTH
        assert figure.caption.endswith(".")
        assert figure.alt.endswith(".")
        assert "nan" not in figure.caption + figure.alt
        assert (figure.picture[-1] == 255).all()


TRACES: Counter[str] = Counter()


class Counting(Tiny):
    """A backbone that counts how often it is traced."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        TRACES[str(x.shape)] += 1
        return Tiny.__call__(self, x, train)


def test_an_fcn8s_has_all_but_the_coarse_output():
    model = FCN8s(CLASSES, Counting(with_bn=True))
    variables = network()[1]
    TRACES.clear()
    figures = draw(model, variables, 9)
    check(figures, [*STREAM_TITLES, "Receptive field", "Upsampling kernels", "Class heat maps"])
    # On one canvas for images of several sizes, once each for streams and gradient; the other one is for the fields.
    assert TRACES == {"(64, 64)": 2, "(32, 32)": 1}
    assert f"{MOST_EXAMPLES} images in rows" in figures[0].alt


def test_an_fcn32s_has_the_coarse_output():
    model = FCN32s(CLASSES, NORMED, upsampling="fixed")
    check(draw(model, draw_network_variables(model)), ["Receptive field", "Class heat maps", "Coarse output"])


def test_a_dilated_network_has_field_and_heat_maps():
    model = DilatedFCN(CLASSES, NORMED)
    check(draw(model, draw_network_variables(model), 1), ["Receptive field", "Class heat maps"])


def test_a_network_at_its_start_has_no_gradient():
    model = FCN32s(CLASSES, NORMED)
    figures = draw(model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), 1)
    check(figures, ["Receptive field", "Upsampling kernels", "Class heat maps", "Coarse output"])
    assert "The gradient is 0 on these images." in figures[0].caption
    assert "changed by 0.0 %" in figures[1].caption


def test_without_examples_only_the_kernels_are_drawn():
    check(draw(*network(), 0), ["Upsampling kernels"])


def test_of_large_images_the_middle_is_used():
    image = np.random.default_rng(0).integers(0, 256, (20, LARGEST + 101, 3), np.uint8)
    label = image[..., 0].copy()
    example = cut_middle(Example("a", image, label))
    np.testing.assert_array_equal(example.image, image[:, 50 : 50 + LARGEST])
    np.testing.assert_array_equal(example.label, label[:, 50 : 50 + LARGEST])
    small = Example("b", image[:, :LARGEST], label[:, :LARGEST])
    np.testing.assert_array_equal(cut_middle(small).image, small.image)


@pytest.mark.parametrize("columns", [1, 2, 5, 7])
def test_panels_are_scaled_to_equal_columns(columns):
    rows = [
        [Panel("one\ntwo", np.full((30, 60, 3), (9, 99, place), np.uint8)) for place in range(columns)],
        [Panel("", np.full((400, 100, 3), (7, 77, 7), np.uint8))],
    ]
    picture = draw_grid(rows, largest=300)
    assert picture.shape[1] <= WIDTH
    width = (picture.shape[1] - GAP) // columns - GAP
    assert width <= 300
    for place in range(columns):
        found = np.nonzero((picture == (9, 99, place)).all(axis=-1))
        assert len(np.unique(found[1])) == width
        assert found[1].min() == GAP + place * (width + GAP)
        assert abs(len(np.unique(found[0])) - width / 2) <= 1
    below = np.nonzero((picture == (7, 77, 7)).all(axis=-1))[0]
    assert below.min() > found[0].max()
    assert len(np.unique(below)) == 4 * width


def test_a_heading_stays_in_its_column():
    blank = np.full((10, 10, 3), 255, np.uint8)
    picture = draw_grid([[Panel("w" * 200, blank), Panel("", blank)]], largest=100)
    dark = np.nonzero((picture < 100).all(axis=-1))[1]
    assert 50 < dark.max() < GAP + 100


def test_colours():
    shares = colour_shares(np.array([[0.0, 0.25, 0.5, 0.75, 1.0, np.nan]]))
    lightness = shares[0, :5].astype(float) @ [0.3, 0.59, 0.11]
    assert (np.diff(lightness) < 0).all()
    assert tuple(shares[0, 0]) == (255, 255, 255)
    assert len(set(shares[0, 5].tolist())) == 1
    blue, white, red = colour_signed(np.array([[-1.0, 0.0, 1.0]]))[0].tolist()
    assert white == [255, 255, 255]
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    grey = to_grey(np.array([[[0, 0, 0], [255, 255, 255], [10, 20, 30]]], np.uint8), 0.5)
    assert grey[0].tolist() == [[128] * 3, [255] * 3, [138] * 3] or grey[0, 0, 0] in (127, 128)


def test_the_field_figure_shows_image_and_gradient_around_the_middle():
    """The gradient is that of one pixel, so all of it lies in a square of 1 + 2 * 3 pixels, and one place is dark."""
    image = np.full((31, 31, 3), 7, np.uint8)
    gradient = np.zeros((31, 31))
    gradient[15 + 3, 15 - 2] = 2.0
    (figure,) = draw_field(FCN8s(3, NORMED), [Example("a", image, image[..., 0])], [gradient])
    assert "score_fr 32 px, a cell every 32 px" in figure.caption
    assert "95 % of the gradient lies in a square of 7 px (green), and half of it in a square of 7 px" in figure.caption
    assert "has 100.0 %" in figure.caption
    assert "The blue one is larger than the picture, 37 px, and not seen." in figure.caption
    column = (figure.picture.shape[1] - GAP) // 2
    dark = (figure.picture == colour_shares(np.ones((1, 1)))[0, 0]).all(axis=-1)
    rows, columns = np.nonzero(dark[-column:, column + GAP :])
    cell = (column - GAP) / 37  # 1.2 times the longest side, odd
    assert abs(rows.mean() - (18 + 3 + 0.5) * cell) < cell
    assert abs(columns.mean() - (18 - 2 + 0.5) * cell) < cell
