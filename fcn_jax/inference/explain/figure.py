"""A figure: a picture of panels with headings, and the texts that stand beside it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

Picture = UInt8[np.ndarray, "_ _ 3"]

WIDTH = 1200  # largest width of a figure, in pixels
GAP = 10  # white space between and around panels, in pixels
TEXT_SIZE = 15  # height of the headings, in pixels
# Colours of 0, 1/3, 2/3 and 1, and of -1, 0 and 1. They get darker steadily, so that they can be told apart in grey.
SEQUENCE = np.array([(255, 255, 255), (254, 204, 92), (227, 66, 52), (73, 0, 40)], np.float64)
DIVERGING = np.array([(33, 82, 156), (255, 255, 255), (178, 40, 30)], np.float64)


class Figure(NamedTuple):
    """A picture and its texts.

    Attributes:
        title: what the figure shows, in a few words.
        caption: how to read the figure, with its numbers.
        alt: what can be seen, for readers who cannot see the picture.
        picture: RGB on white, at most 1200 pixels wide.
    """

    title: str
    caption: str
    alt: str
    picture: Picture


class Panel(NamedTuple):
    """A picture of any size with a heading of one or more lines, or none."""

    heading: str
    picture: Picture


def draw_grid(rows: Sequence[Sequence[Panel]], largest: int = 480, legend: Image.Image | None = None) -> Picture:
    """Draw rows of panels on white, with headings above the panels.

    Args:
        rows: panels, in rows of any length.
        largest: largest width of a column, in pixels. All columns are equally wide, at most `WIDTH` together.
        legend: picture to put above the rows.
    """
    column = choose_column(max(map(len, rows)), largest)
    font = ImageFont.load_default(TEXT_SIZE)
    top = GAP if legend is None else legend.height + GAP
    placed, headings = [], []
    for row in rows:
        text = max(panel.heading.count("\n") + 1 if panel.heading else 0 for panel in row)
        panels = [_fit(panel.picture, column) for panel in row]
        headings += [(GAP + i * (column + GAP), top, panel.heading) for i, panel in enumerate(row)]
        top += round(1.4 * TEXT_SIZE * text)
        placed += [(GAP + i * (column + GAP), top, panel) for i, panel in enumerate(panels)]
        top += max(panel.height for panel in panels) + GAP
    width = GAP + max(map(len, rows)) * (column + GAP)
    picture = Image.new("RGB", (max(width, legend.width if legend else 0), top), "white")
    if legend:
        picture.paste(legend)
    draw = ImageDraw.Draw(picture)
    for x, y, heading in headings:
        lines = [_shorten(line, font, column) for line in heading.split("\n")]
        draw.text((x, y), "\n".join(lines), "black", font, spacing=round(0.3 * TEXT_SIZE))
    for x, y, panel in placed:
        picture.paste(panel, (x, y))
        draw.rectangle((x - 1, y - 1, x + panel.width, y + panel.height), outline=(190, 190, 190))
    return np.array(picture)


def choose_column(columns: int, largest: int = 480) -> int:
    """Choose the width of each of some columns, in pixels; see `draw_grid`."""
    return min(largest, (WIDTH - GAP) // columns - GAP)


def colour_shares(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colour values of 0 to 1 from white over yellow and red to a dark purple; NaN is grey."""
    return _interpolate(values, np.linspace(0, 1, len(SEQUENCE)), SEQUENCE)


def colour_signed(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colour values of -1 to 1 from blue over white to red; NaN is grey."""
    return _interpolate(values, np.linspace(-1, 1, len(DIVERGING)), DIVERGING)


def to_grey(image: Picture, strength: float = 0.5) -> Picture:
    """Turn an image into a pale grey one, as a background for colours.

    Args:
        image: RGB.
        strength: the contrast that is left, 0 (white) to 1.
    """
    grey = 255 - strength * (255 - image.mean(axis=-1))
    return np.rint(np.repeat(grey[..., None], 3, axis=-1)).astype(np.uint8)


def format_percent(share: float) -> str:
    """Format a share of 0 to 1 in percent; NaN is a dash."""
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def _interpolate(values: np.ndarray, places: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Interpolate colours, given at some places, at each value."""
    known = np.nan_to_num(values)
    channels = [np.interp(known, places, colours[:, channel]) for channel in range(3)]
    coloured = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    coloured[np.isnan(values)] = 225
    return coloured


def _fit(picture: Picture, column: int) -> Image.Image:
    """Scale a picture to the width of a column. A pixel becomes a rectangle, or pixels are averaged."""
    height = max(1, round(column * picture.shape[0] / picture.shape[1]))
    return Image.fromarray(picture).resize((column, height), Image.Resampling.BOX)


def _shorten(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, column: int) -> str:
    """Cut the end off a line that is wider than a column."""
    if font.getlength(line) <= column:
        return line
    while line and font.getlength(f"{line}...") > column:
        line = line[:-1]
    return f"{line}..."
