"""Tiles: their canvases, margins and insides, and logits that are those of the whole image."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from random_network import blank, draw_network_variables
from random_variables import draw_images
from small_runs import PLAIN

from fcn_jax.errors import InputError
from fcn_jax.inference.tiles import Tiling, _measure_reach, choose_canvas, cut_image, plan_tiles
from fcn_jax.layers import Conv
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from fcn_jax.models.feature_map import convolve


class Dilated(nn.Module):
    """Two convolutions to stride 8, of which the second one is dilated."""

    @nn.compact
    def __call__(self, x, train=False):
        x = convolve(Conv(8, (7, 7), 8, padding=3, name="conv1"), x).map(jax.nn.relu)
        last = convolve(Conv(8, (3, 3), padding=2, kernel_dilation=2, name="conv2"), x).map(jax.nn.relu)
        return x, x, last


def test_canvases_are_few_and_little_larger():
    sides = {side: choose_canvas(side, 1)[0] for side in (*range(1, 1025), 1500, 2048, 4000)}
    assert all(canvas >= side for side, canvas in sides.items())
    assert all(canvas <= max(32, side * 1.25 + 32 * (side < 128)) for side, canvas in sides.items())
    assert len({canvas for side, canvas in sides.items() if side <= 1024}) == 16
    assert choose_canvas(375, 500) == (384, 512)
    assert choose_canvas(500, 333) == (512, 384)


def test_an_image_with_more_pixels_than_a_square_tile_is_cut():
    tiling = Tiling(64, 96, 32)  # tiles of 256x256 with their margin
    assert choose_canvas(256, 256, tiling) == (256, 256)
    assert choose_canvas(200, 300, tiling) == (224, 256)  # 67 pixels less than the margin on both sides are inside
    assert choose_canvas(40, 900, tiling) == (64, 1024)
    assert choose_canvas(90, 900, tiling) == (96, 576)  # two tiles; three of 448 would compute more
    assert choose_canvas(700, 900, tiling) == (256, 256)


@pytest.mark.parametrize("size", [(2000, 3000), (1080, 1920), (1537, 1600), (900, 3000), (100, 9000)])
@pytest.mark.parametrize("tiling", [Tiling(1024, 256, 32), Tiling(1024, 480, 32), Tiling(200, 40, 8)])
def test_no_other_tiles_compute_fewer_pixels(size, tiling):
    """Of all canvases whose sides are multiples of the stride, or the whole image."""
    whole, step = choose_canvas(*size), tiling.stride

    def count(length: int, side: int) -> int:
        tiles, seen = 1, side - tiling.margin
        while side < length and seen + tiling.margin < length:
            tiles, seen = tiles + 1, seen + side - 2 * tiling.margin
        return tiles

    def measure(height: int, width: int) -> int:
        return count(size[0], height) * count(size[1], width) * height * width

    heights, widths = (
        [*range(2 * tiling.margin + step, length, step), side] for length, side in zip(size, whole, strict=True)
    )
    least = min(measure(h, w) for h in heights for w in widths if h * w <= tiling.canvas_side**2)
    canvas = choose_canvas(*size, tiling)
    assert math.prod(canvas) <= tiling.canvas_side**2
    assert measure(*canvas) <= least or canvas == whole


@pytest.mark.parametrize("size", [(6000, 4000), (1537, 1600), (900, 3000), (1024, 2305), (1500, 1500)])
def test_tiles_hold_every_pixel_once_with_its_margin(size):
    tiling = Tiling(1024, 256, 32)
    image = blank("a", *size)
    tiles = cut_image(7, image, tiling)
    counts = np.zeros(size, np.uint8)
    for tile in tiles:
        assert tile.example is image
        assert (tile.index, tile.count) == (7, len(tiles))
        assert math.prod(tile.canvas) <= 1536 * 1536
        counts[tile.inside] += 1
        for inside, origin, canvas, length in zip(tile.inside, tile.origin, tile.canvas, size, strict=True):
            assert origin % 32 == 0
            assert inside.start == origin == 0 or inside.start - origin >= 256
            assert inside.stop == length <= origin + canvas or origin + canvas - inside.stop >= 256
    assert (counts == 1).all()
    assert len(tiles) == {(6000, 4000): 20, (1537, 1600): 2, (900, 3000): 2, (1024, 2305): 2, (1500, 1500): 1}[size]


def test_small_images_and_images_without_tiling_are_one_tile():
    small, large = blank("small", 40, 50), blank("large", 700, 900)
    for example, tiling, canvas in ((small, Tiling(64, 96, 32), (64, 64)), (large, None, (768, 1024))):
        (tile,) = cut_image(0, example, tiling)
        assert (tile.count, tile.canvas, tile.origin) == (1, canvas, (0, 0))
        assert tile.inside == tuple(slice(0, length) for length in example.label.shape)


def test_side_and_margin_are_multiples_of_the_coarsest_stride():
    assert plan_tiles(FCN8s(3, "resnet18"), 0) is None
    assert plan_tiles(FCN8s(3, "resnet18"), 1000) == Tiling(1024, 256, 32)
    # 217 pixels to the cells of the stage 4 (a receptive field of 435), 8 for the 3x3 convolution of the head, and 24
    # for the resize.
    assert plan_tiles(DilatedFCN(3, ResNet((2, 2, 2, 2), output_stride=8)), 1000) == Tiling(1000, 256, 8)
    # 201.5 pixels to the cells of fc7 (a receptive field of 404) and 31.5 for the upsampling.
    assert _measure_reach(FCN32s(3, "vgg16"), 3) == (233, 32)


def test_a_negative_side_is_refused():
    with pytest.raises(InputError, match="tile is -1; it must be at least 1 pixel, or 0 to compute every image whole"):
        plan_tiles(FCN8s(3, PLAIN), -1)


class OtherUpsampling(FCN):
    def upsample(self, x, to, name):
        return to.replace(values=jnp.broadcast_to(x.values.mean((1, 2), keepdims=True), (*to.values.shape[:3], 3)))


def test_networks_whose_reach_is_not_known_are_refused():
    with pytest.raises(InputError, match=r"how far the scores of OtherUpsampling depend on .* is not known.*tile 0"):
        plan_tiles(OtherUpsampling(3, PLAIN), 32)
    assert plan_tiles(OtherUpsampling(3, PLAIN), 0) is None


HEADS = {
    "fcn32s": (FCN32s(2, PLAIN), 0),
    "fcn16s": (FCN16s(2, PLAIN), 0),
    "fcn8s": (FCN8s(2, PLAIN), 0),
    "fcn8s, fixed": (FCN8s(2, PLAIN, upsampling="fixed"), 0),
    # Its reach is a bound for images of any size.
    "dilated": (DilatedFCN(2, Dilated()), 24),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_gradient_of_a_score_ends_where_the_network_s_reach_does(name):
    model, spare = HEADS[name]
    reach, stride = _measure_reach(model, 3)
    # With positive pixels and parameters no gradient is cleared or cancels out.
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 1, 3)))
    variables = jax.tree.map(lambda shape: jnp.full(shape.shape, 0.1), shapes)
    first = int(reach) + 32
    image = jnp.ones((1, 2 * first + 37, 1, 3))

    def score(image):
        return model.apply(variables, image)[0, first : first + stride, 0, 0]

    gradients = np.asarray(jax.jit(jax.jacrev(score))(image))[:, 0, :, 0, 0]
    pixels = [np.flatnonzero(row) for row in gradients]
    distances = [max(abs(own[0] - pixel), abs(own[-1] - pixel)) for pixel, own in enumerate(pixels, first)]
    assert reach - spare - 1 < max(distances) <= reach


PARTS = {
    "fcn8s": FCN8s(4, PLAIN),
    "dilated": DilatedFCN(4, Dilated()),
    "vgg, reference": FCN8s(4, VGG((1,) * 5, 8, padding="reference"), upsampling="fixed"),
    "alexnet": FCN16s(4, AlexNet(8)),
    "alexnet, reference": FCN32s(4, AlexNet(8, padding="reference")),
    "googlenet": FCN8s(4, GoogLeNet(with_bn=True)),
    "resnet": FCN8s(4, ResNet((1, 1, 1, 1), width=4)),
    "dilated resnet": DilatedFCN(4, ResNet((1, 1, 1, 1), width=4, output_stride=8)),
}
FAST = ("fcn8s", "dilated")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in PARTS])
def test_a_part_of_an_image_has_the_logits_of_the_whole_image(name):
    model = PARTS[name]
    tiling = plan_tiles(model, 32)
    margin, columns = tiling.margin, 33
    image = draw_images(1, 2 * tiling.canvas_side + 45, columns)
    size, variables = jnp.array([image.shape[1:3]]), draw_network_variables(model)
    whole = np.asarray(jax.jit(model.apply)(variables, image))
    apply = jax.jit(lambda image, origin: model.apply(variables, image, size, origin=origin))
    for start in range(0, image.shape[1] - tiling.canvas_side, 32 * (image.shape[1] // 96)):
        part = image[:, start : start + tiling.canvas_side]
        logits = np.asarray(apply(part, jnp.array([(start, 0)])))
        inside = slice(margin * (start > 0), -margin)
        wanted = whole[:, start : start + tiling.canvas_side][:, inside]
        np.testing.assert_allclose(logits[:, inside], wanted, atol=1e-4 * np.abs(whole).max())
        assert np.abs(logits - whole[:, start : start + tiling.canvas_side]).max() > 1e-3 * np.abs(whole).max()
