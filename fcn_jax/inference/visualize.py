"""Pictures of class maps: palette PNGs, overlays, and panels that compare predictions with the truth."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.data.tasks import Task, split_maps
from fcn_jax.runtime.files import replace_atomically

VOID_COLOUR = (224, 224, 192)  # cream, as in VOC's masks

# Layout of `Panels`; lengths are in pixels.
HEADINGS = ("image", "truth", "prediction")
GAP = 8  # white space between and around the panels
MIN_SIDE, MAX_SIDE = 240, 1024  # the longer side of a panel
TEXT_SIZE, TEXT_SHARE = 18, 1 / 50  # the height of the text: at least this, or this share of the picture's width


def colourise(
    label: UInt8[np.ndarray, "height width"], palette: UInt8[np.ndarray, "classes 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Give each pixel the colour of its class; void is cream."""
    return _colour_table(palette)[label]


def list_coloured(palette: UInt8[np.ndarray, "classes 3"]) -> list[int]:
    """List the classes that an overlay gives their colour: all but black ones. Black is the background, as in VOC."""
    return np.flatnonzero(palette.any(axis=1)).tolist()


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    label: UInt8[np.ndarray, "height width"],
    palette: UInt8[np.ndarray, "classes 3"],
    opacity: float = 0.5,
    shown: Collection[int] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Blend the image with the colours of classes, and draw white lines between these classes and around them.

    Args:
        image: RGB.
        label: class indices, 255 = void.
        palette: the colour of each class.
        opacity: the weight of the class colours, 0 to 1.
        shown: the classes whose colours are drawn; None: those of `list_coloured`, and void.
    """
    shown = [*list_coloured(palette), *range(len(palette), 256)] if shown is None else shown
    hidden = sorted(set(range(256)) - set(shown))
    share = np.full((256, 1), opacity, np.float32)
    share[hidden] = 0
    # Products per class, then additions in place: each temporary array of the image's size costs more than arithmetic.
    mixed = image * (1 - share)[label]
    mixed += (share * _colour_table(palette))[label]
    merged = np.arange(256, dtype=np.uint8)  # hidden classes count as one, so there are no lines between them
    merged[hidden] = hidden[0] if hidden else 0
    mixed[_find_borders(merged[label] if len(hidden) > 1 else label)] = 255
    return np.rint(mixed, out=mixed).astype(np.uint8)


def overlay_tasks(
    image: UInt8[np.ndarray, "height width 3"], label: UInt8[np.ndarray, "height width *tasks"], tasks: Sequence[Task]
) -> UInt8[np.ndarray, "height wide 3"]:
    """Draw an image, and beside it the image under the colours of its labels in each task."""
    maps = zip(split_maps(label, len(tasks)), tasks, strict=True)
    return np.concatenate([image, *(overlay(image, own, task.palette) for own, task in maps)], axis=1)


def add_legend(
    picture: UInt8[np.ndarray, "height width 3"],
    label: UInt8[np.ndarray, "height width"],
    palette: UInt8[np.ndarray, "classes 3"],
    class_names: Sequence[str],
) -> UInt8[np.ndarray, "tall wide 3"]:
    """Put the colours and names of the classes that are in a label below a picture, on white."""
    font_size = max(TEXT_SIZE, round(picture.shape[1] * TEXT_SHARE))
    legend = draw_legend(np.unique(label), palette, class_names, picture.shape[1], font_size)
    return stack([picture, np.array(legend)])


def stack(pictures: list[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "tall wide 3"]:
    """Put pictures of any size below each other on white."""
    wide = max(picture.shape[1] for picture in pictures)
    rows = [np.pad(p, ((0, 4), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(rows, axis=0)


class Panels:
    """A picture of the first examples of a split: image, truth and prediction in columns, and a legend, for each task.

    Predictions are shown everywhere, also where the truth is void. Small images are enlarged by a whole factor, so that
    the longer side has at least 240 pixels. Of images longer than 1024 pixels every second, third, ... pixel is shown.

    Args:
        source: the split.
        tasks: the tasks of the split.
        count: number of examples to show.
    """

    def __init__(self, source: Sequence[Example], tasks: Sequence[Task], count: int = 8):
        self._tasks = tasks
        self._rows: dict[str, tuple[np.ndarray, ...]] = {source[i].name: () for i in range(min(count, len(source)))}

    def add(self, example: Example, prediction: UInt8[np.ndarray, "height width *tasks"]) -> None:
        """Keep an example and its prediction if it is among the first; calls may come in any order and in threads."""
        if example.name in self._rows:
            self._rows[example.name] = tuple(map(_resize, (example.picture, example.label, prediction)))

    def draw(self) -> UInt8[np.ndarray, "tall wide 3"] | None:
        """Draw the examples that were added; None if there are none, as on a host that scored other examples."""
        rows = [row for row in self._rows.values() if row]
        if not rows:
            return None
        count = len(self._tasks)
        split = [(image, split_maps(truth, count), split_maps(prediction, count)) for image, truth, prediction in rows]
        pictures = [
            _draw_panels([(image, truth[index], prediction[index]) for image, truth, prediction in split], task)
            for index, task in enumerate(self._tasks)
        ]
        return pictures[0] if count == 1 else stack(pictures)


def _draw_panels(rows: Sequence[tuple[np.ndarray, ...]], task: Task) -> UInt8[np.ndarray, "tall wide 3"]:
    _, class_names, palette, _ = task
    panel_width = max(image.shape[1] for image, _, _ in rows)
    font_size = max(TEXT_SIZE, round(3 * panel_width * TEXT_SHARE))
    font = ImageFont.load_default(font_size)
    column = GAP + max(panel_width, *(math.ceil(font.getlength(heading)) for heading in HEADINGS))
    present = np.unique(np.concatenate([np.unique(label) for row in rows for label in row[1:]]))
    legend = draw_legend(present, palette, class_names, 3 * column + GAP, font_size)
    top = legend.height + 2 * font_size
    tall = top + sum(image.shape[0] + GAP for image, _, _ in rows)

    picture = Image.new("RGB", (max(legend.width, 3 * column + GAP), tall), "white")
    picture.paste(legend)
    draw = ImageDraw.Draw(picture)
    for place, heading in enumerate(HEADINGS):
        draw.text((GAP + place * column, top - font_size), heading, "black", font, anchor="lm")
    for image, truth, prediction in rows:
        panels = (image, colourise(truth, palette), colourise(prediction, palette))
        for place, panel in enumerate(panels):
            picture.paste(Image.fromarray(panel), (GAP + place * column, top))
        top += image.shape[0] + GAP
    return np.array(picture)


def save_palette_png(
    label: UInt8[np.ndarray, "height width"], palette: UInt8[np.ndarray, "classes 3"], file: Path
) -> None:
    """Write class indices as a PNG of mode P, as VOC's masks are; the file is complete or not there."""
    picture = Image.fromarray(label, mode="L")
    # All 256 colours are set. With fewer, Pillow stores so few bits for a pixel that void (255) becomes some class.
    picture.putpalette(_colour_table(palette).tobytes())
    with replace_atomically(file, sync=False) as temporary:
        picture.save(temporary, format="PNG")


def save_png(image: UInt8[np.ndarray, "height width 3"], file: Path) -> None:
    """Write an RGB PNG; the file is complete or not there."""
    # zlib's default effort takes four times as long and makes photographs no smaller.
    with replace_atomically(file, sync=False) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1)


def draw_legend(
    present: np.ndarray, palette: np.ndarray, class_names: Sequence[str], width: int, font_size: int
) -> Image.Image:
    """Draw a coloured square and the name for each class.

    Args:
        present: the labels to draw, class indices and 255 = void.
        palette: the colour of each class.
        class_names: the name of each class.
        width: width of the picture in pixels. Lines break there; a longer name widens it.
        font_size: height of the text in pixels.
    """
    font, line, square = ImageFont.load_default(font_size), round(1.5 * font_size), font_size
    names = {**dict(enumerate(class_names)), IGNORE: "void"}
    x, y, entries = GAP, GAP, []
    for value in present.tolist():
        length = square + GAP + math.ceil(font.getlength(names[value]))
        if x > GAP and x + length + GAP > width:
            x, y = GAP, y + line
        entries.append((x, y, value))
        width = max(width, x + length + GAP)
        x += length + 3 * GAP
    picture = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, value in entries:
        colour = tuple(_colour_table(palette)[value].tolist())
        draw.rectangle((x, y, x + square - 1, y + square - 1), colour, outline="grey")
        draw.text((x + square + GAP, y + square / 2), names[value], "black", font, anchor="lm")
    return picture


def save_grey_png(label: UInt8[np.ndarray, "height width"], file: Path) -> None:
    """Write the values of a mask as a grey PNG; the file is complete or not there."""
    with replace_atomically(file, sync=False) as temporary:
        Image.fromarray(label).save(temporary, format="PNG")


def _colour_table(palette: np.ndarray) -> np.ndarray:
    """Return a colour for each of the 256 values of a label."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE] = VOID_COLOUR
    return colours


def _find_borders(label: np.ndarray) -> np.ndarray:
    """Find the pixels whose right or lower neighbour has another class."""
    border = np.zeros(label.shape, bool)
    border[:, :-1] |= label[:, :-1] != label[:, 1:]
    border[:-1] |= label[:-1] != label[1:]
    return border


def _resize(picture: np.ndarray) -> np.ndarray:
    """Repeat or skip pixels, so that the longer side has MIN_SIDE to MAX_SIDE pixels where whole factors allow it."""
    longer = max(picture.shape[:2])
    step, factor = -(-longer // MAX_SIDE), -(-MIN_SIDE // longer)
    return picture[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)
