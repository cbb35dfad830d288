"""The figure of the receptive field: the theoretical squares, and a heat map of the measured gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from fcn_jax.data.dataset import Example
from fcn_jax.inference.explain.figure import (
    Figure,
    Panel,
    Picture,
    choose_column,
    colour_shares,
    draw_grid,
    format_percent,
)
from fcn_jax.inference.explain.receptive_field import (
    average_windows,
    find_side,
    intersect_window,
    list_fields,
    measure_central_share,
)
from fcn_jax.models.build import Network

BINS = 120  # the heat map has at most this many cells along an axis; gradients of single pixels are noise
COLUMN = choose_column(2)
BLUE, GREEN = (0, 114, 178), (0, 158, 115)


class Square(NamedTuple):
    """A square to draw around the middle of a window; `side` is in input pixels."""

    side: int
    colour: tuple[int, int, int]
    dashed: bool = False


def draw_field(
    model: Network, examples: Sequence[Example], gradients: Sequence[Float[np.ndarray, "_ _"]]
) -> list[Figure]:
    """Draw the measured receptive field of the pixel in the middle, with the theoretical one around it.

    Args:
        model: the network; one whose logits have an unknown field has no such figure.
        examples: the images.
        gradients: for each image the function of `make_gradient`, without what is outside the image.
    """
    fields = list_fields(model)
    if "logits" not in fields:
        return []
    side = 2 * (fields["logits"].side // 2) + 1
    window = average_windows(gradients, side)
    share, even = measure_central_share(window)
    half, most = find_side(window, 0.5), find_side(window, 0.95)
    coarsest = next(iter(fields.values())).side
    squares = (Square(side, BLUE), Square(coarsest, BLUE, dashed=True), Square(most, GREEN))

    # Of a field that is much larger than the images only the part around them is shown.
    longest = max(max(gradient.shape) for gradient in gradients)
    shown = min(side, 2 * (round(1.2 * longest) // 2) + 1)
    cut = (side - shown) // 2
    visible = slice(cut, side - cut)
    heat = _reduce(window[visible, visible])
    largest = np.nanmax(heat)
    # The square root shows the weak border of the field too.
    heat_map = colour_shares(np.sqrt(heat / largest) if largest > 0 else heat)
    photograph = _cut_window(examples[0].picture, shown)
    larger = "Both are" if coarsest > shown else "The blue one is"
    hidden = "" if shown == side else f" {larger} larger than the picture, {shown} px, and not seen."
    listing = "; ".join(
        f"{name} {field.side} px" + (f", a cell every {field.stride} px" if field.stride > 1 else "")
        for name, field in fields.items()
    )
    measured = f"95 % of the gradient lies in a square of {most} px (green)"
    details = (
        f"{measured}, and half of it in a square of {half} px. The central half of the field has "
        f"{format_percent(share)}; in a field of equal weights it would have {format_percent(even)} (Luo et al. 2016)."
    )
    if not most:  # as in a new network, whose scores are zero
        measured = "The gradient is 0 on these images"
        details = f"{measured}."
    panels = [
        Panel(f"theoretical field of a pixel: {side} x {side}", _mark(photograph, shown, squares)),
        Panel(
            f"gradient, mean of {len(gradients)}" + (f": 95 % in {most} x {most}" if most else ": 0"),
            _mark(heat_map, shown, squares),
        ),
    ]
    return [
        Figure(
            "Receptive field",
            f"Theoretical fields: {listing}. The blue square is the field of the logits of the pixel in the middle "
            f"({side} px), the dashed one that of a cell of the coarsest map ({coarsest} px).{hidden} Right: absolute "
            "gradient of the pixel's largest logit by the image, its square root from white, 0, to dark purple; grey "
            f"is outside the images. {details}",
            "An image and a heat map of the gradient with squares around the middle. The pixel can depend on a square "
            f"of {side} px. {measured}.",
            draw_grid([panels]),
        )
    ]


def _cut_window(image: Picture, side: int) -> Picture:
    """Cut the window around the middle out of an image; what is outside the image is grey."""
    result = np.full((side, side, 3), 225, np.uint8)
    rows, columns, window = intersect_window(image.shape, side)
    result[window] = image[rows, columns]
    return result


def _reduce(window: np.ndarray) -> np.ndarray:
    """Average a window over at most `BINS` cells along an axis, without the pixels outside the images."""
    bins = min(BINS, len(window))

    def average(values: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize((bins, bins), Image.Resampling.BOX))

    known = average(~np.isnan(window))
    return np.divide(average(np.nan_to_num(window)), known, out=np.full((bins, bins), np.nan), where=known > 0.01)


def _mark(picture: Picture, side: int, squares: Sequence[Square]) -> Picture:
    """Scale a window of `side` input pixels to the width of a column, and draw squares around its middle."""
    image = Image.fromarray(picture).resize((COLUMN, COLUMN), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for square in squares:
        if square.side > side:
            continue
        reach = square.side / side * COLUMN / 2
        low, high = max(COLUMN / 2 - reach, 1), min(COLUMN / 2 + reach, COLUMN - 2)
        if not square.dashed:
            draw.rectangle((low, low, high, high), outline=square.colour, width=3)
            continue
        for start in np.arange(low, high, 10):
            stop = min(start + 5, high)
            for level in (low, high):
                draw.line((start, level, stop, level), square.colour, 2)
                draw.line((level, start, level, stop), square.colour, 2)
    return np.array(image)
