"""Augmentation: resampling against Pillow and a plain loop, image and label together, nothing from outside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fcn_jax.config import CAFFE_INPUT, AugmentConfig, InputConfig
from fcn_jax.data.augment import Changes, augment, draw_changes, normalise

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])


CROP = 24
RGB = InputConfig()
EXACT = AugmentConfig(crop=CROP, scale=(1.0, 1.0), flip=False)
MIRRORED = AugmentConfig(crop=CROP, scale=(1.0, 1.0))
ZOOMED = AugmentConfig(crop=CROP, scale=(0.5, 2.0))
HALVED = AugmentConfig(crop=CROP, scale=(0.5, 0.5))
ENLARGED = AugmentConfig(crop=CROP, scale=(1.0, 2.5))
COLOURED = AugmentConfig(crop=CROP, scale=(1.0, 1.0), flip=False, colour=0.4)


@functools.cache
def compiled(config: AugmentConfig, input_config: InputConfig = RGB):
    one = functools.partial(augment, config=config, input_config=input_config)
    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0, None)))


def draw(config: AugmentConfig, size: tuple[int, int], count: int, seed: int = 0) -> tuple[np.ndarray, Changes]:
    sizes = np.tile(np.array(size, np.int32), (count, 1))
    return sizes, draw_changes(seed, 0, sizes, 0, count, config)


def run(config: AugmentConfig, image, label, count: int, seed: int = 0, fill: int = 99, canvas=(80, 80)):
    """Augment an image, on a canvas full of `fill`, with several changes."""
    height, width = label.shape
    on_canvas = np.full((*canvas, 3), fill, np.uint8)
    label_on_canvas = np.full(canvas, fill, np.uint8)
    on_canvas[:height, :width], label_on_canvas[:height, :width] = image, label
    results = compiled(config)(on_canvas, label_on_canvas, *draw(config, (height, width), count, seed), None)
    return tuple(np.array(array) for array in results)


def plain(image: np.ndarray) -> np.ndarray:
    """Normalised in double precision."""
    return (image.astype(np.float64) - MEAN) / STD


def raw(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float64) * STD + MEAN


def noise(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    return image, generator.integers(0, 20, (height, width)).astype(np.uint8)


def ramps(height: int, width: int) -> np.ndarray:
    """An image whose red is the row, green the column: its colours tell where a pixel comes from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def geometry(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Zoom of rows, row of result 0, zoom of columns (negative: mirrored), column of result 0, of an augmented ramp."""
    n = len(pixels)
    middle, quarter = n // 2, n // 4
    row, column = raw(pixels)[:, middle, 0], raw(pixels)[middle, :, 1]
    results = []
    for line in (row, column):
        slope = (line[middle + quarter] - line[middle - quarter]) / (2 * quarter)
        results += [1 / slope, line[middle] - middle * slope]
    return tuple(results)


@pytest.mark.parametrize("shape", [(), (2,), (2, 1)])
def test_normalise(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 4, 5, 3), np.uint8)
    result = normalise(jnp.asarray(image), RGB)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, plain(image), rtol=0, atol=1e-6)


def test_normalise_by_hand():
    # torchvision's (x / 255 - mean) / std with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225).
    image = np.array([[[255, 0, 51]]], np.uint8)
    expected = [[[(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]]]
    np.testing.assert_allclose(normalise(jnp.asarray(image), RGB), expected, rtol=1e-5)


def test_normalise_for_caffe():
    # The reference's voc_layers.py: reversed channels, the mean of BGR taken off, no division.
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    expected = image.astype(np.float32)[..., ::-1] - np.array([104.00699, 116.66877, 122.67892], np.float32)
    np.testing.assert_array_equal(normalise(jnp.asarray(image), CAFFE_INPUT), expected)


def test_an_augmented_image_is_the_same_photograph_for_every_network():
    """Windows, colours and all: only the numbers that stand for it differ."""
    image, label = noise(40, 30)
    config = AugmentConfig(crop=CROP, scale=(0.5, 2.0), colour=0.4)
    drawn = draw(config, (40, 30), 3)
    ours, label_ours = compiled(config)(image, label, *drawn, None)
    half = InputConfig("rgb", RGB.mean, tuple(value / 2 for value in RGB.std))
    theirs, label_theirs = compiled(config, half)(image, label, *drawn, None)
    np.testing.assert_array_equal(label_theirs, label_ours)
    np.testing.assert_allclose(theirs, 2 * np.asarray(ours), rtol=0, atol=1e-4)
    assert np.ptp(ours) > 1
    caffe = InputConfig("bgr", RGB.mean[::-1], (1.0, 1.0, 1.0))
    theirs, _ = compiled(config, caffe)(image, label, *drawn, None)
    np.testing.assert_allclose(np.asarray(theirs)[..., ::-1] / np.array(RGB.std), ours, rtol=0, atol=1e-4)


def test_without_zoom_and_flip_the_whole_image_comes_out_unchanged():
    image, label = noise(CROP, CROP)
    pixels, labels = run(EXACT, image, label, 4)
    for result, result_label in zip(pixels, labels, strict=True):
        np.testing.assert_array_equal(result, np.asarray(normalise(jnp.asarray(image), RGB)))
        np.testing.assert_array_equal(result_label, label)
    assert pixels.dtype == np.float32
    assert labels.dtype == np.uint8


def test_flips_are_exact_mirrors_of_image_and_label_together_in_half_of_the_cases():
    image, label = noise(CROP, CROP)
    pixels, labels = run(MIRRORED, image, label, 64)
    straight = np.asarray(normalise(jnp.asarray(image), RGB))
    mirrored = 0
    for result, result_label in zip(pixels, labels, strict=True):
        flipped = (result != straight).any()
        mirrored += flipped
        np.testing.assert_array_equal(result, straight[:, ::-1] if flipped else straight)
        np.testing.assert_array_equal(result_label, label[:, ::-1] if flipped else label)
    assert 16 <= mirrored <= 48


def test_pixels_and_labels_end_at_the_same_place_where_a_sample_lies_on_the_border():
    """Halved, an image of odd sides has samples just on its border."""
    pixels, labels = run(HALVED, np.full((21, 21, 3), 255, np.uint8), np.full((21, 21), 3, np.uint8), 16)
    np.testing.assert_array_equal((pixels == 0).all(axis=-1), labels == 255)


def test_beyond_the_image_are_the_mean_colour_and_void():
    image = np.full((8, 12, 3), 255, np.uint8)
    pixels, labels = run(MIRRORED, image, np.full((8, 12), 3, np.uint8), 16)
    outside = labels == 255
    np.testing.assert_array_equal((pixels == 0).all(axis=-1), outside)
    np.testing.assert_array_equal((pixels == 0).any(axis=-1), outside)
    assert (labels[~outside] == 3).all()
    # All of the image is there, in one piece, and not always at the same place.
    np.testing.assert_array_equal((~outside).sum(axis=(1, 2)), 8 * 12)
    np.testing.assert_array_equal((~outside).any(axis=2).sum(axis=1), 8)
    assert len({tuple(np.argwhere(~one)[0]) for one in outside}) > 4
    np.testing.assert_allclose(pixels[~outside], np.broadcast_to((255 - MEAN) / STD, (16 * 96, 3)), rtol=1e-6)


# Not exactly halved: there each place lies between two pixels, and no label is the nearest.
@pytest.mark.parametrize("config", [AugmentConfig(crop=CROP, scale=(0.55, 0.55)), ZOOMED, ENLARGED])
def test_image_and_label_move_together(config):
    height, width = 60, 72
    image = ramps(height, width)
    # The same keys move both in the same way, so each axis can be told by a label of its own.
    pixels, row_labels = run(config, image, image[..., 0], 24)
    _, column_labels = run(config, image, image[..., 1], 24)
    offsets = []
    for result, row_label, column_label in zip(raw(pixels), row_labels, column_labels, strict=True):
        # Near the border a wide average is one-sided: keep two cells away from it.
        inside = (row_label >= 2) & (row_label < height - 2) & (column_label >= 2) & (column_label < width - 2)
        assert inside.mean() > 0.5
        offset = result[..., :2] - np.stack([row_label, column_label], axis=-1)
        # Rounding to the nearest is half a pixel; a wide average of a ramp is up to a tenth beside it.
        assert np.abs(offset[inside]).max() < 0.62
        offsets.append(offset[inside].mean(axis=0))
    # Rounding goes both ways: a shift of half a cell, the classic error, would show in the mean.
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.2


def test_labels_are_the_nearest_and_never_mixed():
    image, label = ramps(40, 40), noise(40, 40)[1]
    pixels, labels = run(ENLARGED, image, label, 12)
    for result, picked in zip(raw(pixels), labels, strict=True):
        row, column = result[..., 0], result[..., 1]
        # Where the place is clear of a boundary between two cells, within what float32 leaves of it.
        clear = (np.abs(row % 1 - 0.5) > 1e-3) & (np.abs(column % 1 - 0.5) > 1e-3)
        assert clear.mean() > 0.9
        nearest = label[np.rint(row).astype(int), np.rint(column).astype(int)]
        np.testing.assert_array_equal(picked[clear], nearest[clear])


@pytest.mark.parametrize("config", [EXACT, ENLARGED])
def test_enlarging_is_bilinear(config):
    height, width = 40, 48
    image, label = noise(height, width, 1)
    pixels, _ = run(config, image, label, 4, seed=3)
    guides, _ = run(config, ramps(height, width), label, 4, seed=3)
    source = image.astype(np.float64)
    for result, guide in zip(raw(pixels), guides, strict=True):
        row_zoom, top, column_zoom, left = geometry(guide)
        assert abs(column_zoom) == pytest.approx(row_zoom, rel=1e-4)
        for i in range(CROP):
            for j in range(CROP):
                y, x = top + i / row_zoom, left + j / column_zoom
                y0, x0 = min(max(int(np.floor(y)), 0), height - 2), min(max(int(np.floor(x)), 0), width - 2)
                v, h = min(max(y - y0, 0), 1), min(max(x - x0, 0), 1)
                above = (1 - h) * source[y0, x0] + h * source[y0, x0 + 1]
                below = (1 - h) * source[y0 + 1, x0] + h * source[y0 + 1, x0 + 1]
                assert np.abs(result[i, j] - (1 - v) * above - v * below).max() < 0.1


@pytest.mark.parametrize("config", [HALVED, ENLARGED])
def test_a_window_equals_pillows(config):
    """Pillow's BILINEAR resize of a window, which widens the same tent when it shrinks."""
    height, width = 72, 80
    image, label = noise(height, width, 2)
    pixels, _ = run(config, image, label, 24)
    guides, _ = run(config, ramps(height, width), label, 24)
    compared = 0
    for result, guide in zip(raw(pixels), guides, strict=True):
        zoom, top, column_zoom, left = geometry(guide)
        mirrored = column_zoom < 0
        first = left + (CROP - 1) / column_zoom if mirrored else left
        # Edges of the window, in Pillow's coordinates where cell i spans i..i + 1.
        box = (first + 0.5 - 0.5 / zoom, top + 0.5 - 0.5 / zoom)
        box = (*box, box[0] + CROP / zoom, box[1] + CROP / zoom)
        if min(box) < 0 or box[2] > width or box[3] > height:
            continue  # Pillow has no windows beyond the image
        expected = by_pillow(image, box)
        np.testing.assert_allclose(result, expected[:, ::-1] if mirrored else expected, rtol=0, atol=0.1)
        compared += 1
    assert compared >= 6


@pytest.mark.parametrize("side", [16, 32, 48, 60])
def test_a_whole_image_zoomed_to_the_crop_equals_pillows(side):
    image, label = noise(side, side, 3)
    config = AugmentConfig(crop=CROP, scale=(CROP / side, CROP / side), flip=False)
    pixels, labels = run(HALVED if side == 48 else config, image, label, 2)
    expected = by_pillow(image, (0, 0, side, side))
    for result in raw(pixels):
        straight = result if np.abs(result - expected).max() < 20 else result[:, ::-1]
        np.testing.assert_allclose(straight, expected, rtol=0, atol=0.05)
    assert not (labels == 255).any()


def by_pillow(image: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    planes = [Image.fromarray(image[..., channel].astype(np.float32)) for channel in range(3)]
    return np.stack([plane.resize((CROP, CROP), Image.Resampling.BILINEAR, box=box) for plane in planes], axis=-1)


def test_a_fine_checkerboard_shrinks_to_grey():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    pixels, _ = run(HALVED, image, np.zeros((64, 64), np.uint8), 8)
    # Taking every second pixel would give black or white; the mean of the board is 127.5. At the edge of the board,
    # where a window may lie, the average is one-sided.
    assert np.abs(raw(pixels)[:, 1:-1, 1:-1] - 127.5).max() < 1.5


def test_what_lies_on_the_canvas_beside_the_image_never_leaks_in():
    image, label = noise(20, 26)
    black, white = (run(ZOOMED, image, label, 24, fill=fill) for fill in (0, 255))
    np.testing.assert_array_equal(black[0], white[0])
    np.testing.assert_array_equal(black[1], white[1])
    # And an image on a canvas is treated as the image alone.
    alone = run(ZOOMED, image, label, 24, canvas=(20, 26))
    np.testing.assert_allclose(black[0], alone[0], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(black[1], alone[1])


def test_the_seed_decides_everything():
    image, label = noise(20, 20)
    first, again, other = (run(ZOOMED, image, label, 4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not any(np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=True))
    assert not any(np.array_equal(first[0][i], first[0][j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("config", [ZOOMED, ENLARGED])
def test_zooms_cover_their_range_uniformly_in_the_logarithm(config):
    pixels, _ = run(config, ramps(80, 80), np.zeros((80, 80), np.uint8), 120)
    geometries = np.array([geometry(one) for one in pixels])
    zooms = geometries[:, 0]
    low, high = config.scale
    assert zooms.min() > low * 0.99
    assert zooms.max() < high * 1.01
    share = np.log(zooms / low) / np.log(high / low)
    # 120 draws: the mean of a uniform has a deviation of 0.026, each fifth of the range expects 26.
    assert abs(share.mean() - 0.5) < 0.1
    assert (np.histogram(share, 5, (-0.05, 1.05))[0] > 9).all()
    # Height and width are zoomed alike.
    np.testing.assert_allclose(np.abs(geometries[:, 2]), zooms, rtol=0.03)


@pytest.mark.parametrize("config", [EXACT, MIRRORED], ids=["plain", "flipped"])
def test_without_zoom_a_window_is_a_piece_of_the_image_as_it_is(config):
    image, label = noise(31, 40)
    for pixels, labels in zip(*run(config, image, label, 12), strict=True):
        places = np.ndindex(31 - CROP + 1, 40 - CROP + 1)
        windows = [(slice(row, row + CROP), slice(column, column + CROP)) for row, column in places]
        turns = [slice(None)] if not config.flip else [slice(None), slice(None, None, -1)]
        same = [(w, t) for w in windows for t in turns if np.array_equal(label[w][:, t], labels)]
        assert len(same) == 1
        window, turn = same[0]
        np.testing.assert_allclose(pixels, plain(image[window][:, turn]), atol=1e-5)


@pytest.mark.parametrize("side", [20, 21])
def test_a_smaller_image_lies_in_the_window_as_it_is(side):
    image, label = noise(side, side)
    pixels, labels = run(EXACT, image, label, 60)
    corners = [tuple(np.argwhere(one != 255).min(axis=0)) for one in labels]
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(CROP - side + 1))
    for (row, column), one in zip(corners, pixels, strict=True):
        np.testing.assert_allclose(one[row : row + side, column : column + side], plain(image), atol=1e-5)


def test_windows_reach_all_of_a_larger_image_and_never_beyond():
    height, width = 28, 30
    pixels, labels = run(EXACT, ramps(height, width), np.zeros((height, width), np.uint8), 210)
    assert not labels.any()
    corners = raw(pixels)[:, 0, 0, :2]
    # Every place equally likely: five rows, seven columns.
    for axis, places in enumerate((height - CROP + 1, width - CROP + 1)):
        counts = np.bincount(corners[:, axis].round().astype(int), minlength=places)
        assert len(counts) == places
        assert np.all(np.abs(counts - 210 / places) < 4 * np.sqrt(210 / places))
    # Rows and columns are drawn apart.
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.3


def test_colour_changes_are_bounded_and_of_three_kinds():
    image, label = noise(CROP, CROP, 4)
    pixels, labels = run(COLOURED, image, label, 16)
    before = plain(image).reshape(-1, 3)
    grey = np.repeat(before.mean(axis=1, keepdims=True), 3, axis=1)
    # result = contrast (grey + saturation (colour - grey)) + brightness
    terms = np.stack([grey.ravel(), (before - grey).ravel(), np.ones(grey.size)], axis=1)
    found = []
    for result, result_label in zip(pixels, labels, strict=True):
        np.testing.assert_array_equal(result_label, label)
        factors = np.linalg.lstsq(terms, result.astype(np.float64).ravel())[0]
        np.testing.assert_allclose(terms @ factors, result.ravel(), rtol=0, atol=1e-5)
        found.append((factors[0] - 1, factors[1] / factors[0] - 1, factors[2]))
    found = np.array(found)
    assert np.abs(found).max() <= COLOURED.colour + 1e-4
    assert (np.abs(found).max(axis=0) > COLOURED.colour / 2).all()
    # The three are drawn apart.
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.9


def test_colour_stays_out_of_the_surroundings():
    image = np.full((6, 6, 3), 200, np.uint8)
    pixels, labels = run(COLOURED, image, np.zeros((6, 6), np.uint8), 8)
    assert (labels == 255).any()
    assert not pixels[labels == 255].any()
    assert pixels[labels == 0].all()
