"""Pictures in the page: small copies whose content is that of the original."""

import base64
import io

import numpy as np
from PIL import Image

from fcn_jax.inference.report.pictures import SIDE, Picture, draw_errors, embed_drawing, embed_photograph


def decode(picture: Picture) -> Image.Image:
    kind, content = picture.uri.split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{image.format.lower()}"
    assert image.size == (picture.width, picture.height)
    return image


def test_errors_are_red_right_pixels_white_and_void_grey():
    label = np.array([[0, 1, 255], [2, 255, 1]], np.uint8)
    prediction = np.array([[0, 2, 0], [2, 1, 0]], np.uint8)
    drawn = draw_errors(label, prediction)
    red, white, grey = (200, 30, 60), (255, 255, 255), (150, 150, 150)
    expected = [[white, red, grey], [white, grey, red]]
    np.testing.assert_array_equal(drawn, expected)


def test_a_drawing_keeps_its_colours():
    colours = np.random.default_rng(0).integers(0, 256, (200, 3), np.uint8)
    picture = colours[np.arange(40 * 50).reshape(40, 50) % 200]
    image = decode(embed_drawing(picture))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), picture)


def test_a_drawing_of_many_colours_keeps_them():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(decode(embed_drawing(picture))), picture)


def test_large_pictures_become_small():
    picture = np.zeros((2000, 1100, 3), np.uint8)
    picture[1000:] = 200
    drawing, photograph = embed_drawing(picture), embed_photograph(picture)
    assert (drawing.height, drawing.width) == (500, 275)
    assert max(photograph.height, photograph.width) == SIDE
    for small in (drawing, photograph):
        rows = np.asarray(decode(small).convert("L")).mean(axis=1)
        assert abs(np.searchsorted(rows, 100) - small.height / 2) <= 1


def test_a_small_photograph_keeps_its_size():
    image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    decoded = decode(embed_photograph(image))
    assert decoded.format == "JPEG"
    np.testing.assert_allclose(np.asarray(decoded), image, atol=3)
