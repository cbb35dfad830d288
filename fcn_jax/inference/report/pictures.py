"""Pictures inside a page: small copies as data URIs, and maps of the wrong pixels."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fcn_jax.data.labels import IGNORE
from fcn_jax.inference.html_page import make_data_uri

SIDE = 512  # the longer side of a picture is at most so many pixels
QUALITY = 85  # of photographs, as JPEG

RIGHT_COLOUR, WRONG_COLOUR, VOID_GREY = (255, 255, 255), (200, 30, 60), (150, 150, 150)


class Picture(NamedTuple):
    """A picture as an address that holds it, with its size in pixels."""

    uri: str
    width: int
    height: int


def draw_errors(
    label: UInt8[np.ndarray, "height width"], prediction: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw wrong pixels red, right ones white, and void grey."""
    kinds = np.where(label == IGNORE, 2, (label != prediction).astype(np.intp))
    return np.array([RIGHT_COLOUR, WRONG_COLOUR, VOID_GREY], np.uint8)[kinds]


def embed_photograph(image: UInt8[np.ndarray, "height width 3"]) -> Picture:
    """Embed a photograph as JPEG, averaged to at most `SIDE` pixels."""
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=QUALITY)
    return _embed(stream, "jpeg", small)


def embed_drawing(image: UInt8[np.ndarray, "height width 3"], side: int = SIDE) -> Picture:
    """Embed a picture of few colours as PNG; of one longer than `side` every second, third, ... pixel is shown."""
    step = -(-max(image.shape[:2]) // side)
    small = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    few = small.quantize(256, dither=Image.Dither.NONE) if small.getcolors(256) else small
    stream = io.BytesIO()
    few.save(stream, format="PNG", optimize=True)
    return _embed(stream, "png", small)


def _embed(stream: io.BytesIO, kind: str, image: Image.Image) -> Picture:
    return Picture(make_data_uri(stream.getvalue(), kind), *image.size)
