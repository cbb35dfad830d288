"""Pictures of labels: palette PNGs, overlays, and image | truth | prediction panels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE

# Void is drawn in VOC's cream.
VOID_COLOUR = (224, 224, 192)


def colourise(
    label: UInt8[np.ndarray, "height width"], palette: UInt8[np.ndarray, "classes 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The colour of each pixel's class, void in cream."""
    return _colours(palette)[label]


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    label: UInt8[np.ndarray, "height width"],
    palette: UInt8[np.ndarray, "classes 3"],
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "height width 3"]:
    """The image with each class but the first washed in its colour, and a light line where two classes meet."""
    share = np.full((256, 1), opacity, np.float32)
    share[0] = 0
    # Per class first, then in place: at full size each further array costs more than the arithmetic.
    mixed = image * (1 - share)[label]
    mixed += (share * _colours(palette))[label]
    mixed[_borders(label)] = 255
    return np.rint(mixed, out=mixed).astype(np.uint8)


def panel(
    image: UInt8[np.ndarray, "height width 3"],
    truth: UInt8[np.ndarray, "height width"],
    prediction: UInt8[np.ndarray, "height width"],
    palette: UInt8[np.ndarray, "classes 3"],
) -> UInt8[np.ndarray, "height wide 3"]:
    """Image, truth and prediction side by side; void is drawn in the prediction too, where nothing is scored."""
    scored = np.where(truth == IGNORE, np.uint8(IGNORE), prediction)
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([image, gap, colourise(truth, palette), gap, colourise(scored, palette)], axis=1)


def stack(panels: list[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "tall wide 3"]:
    """Pictures of any sizes, one below the other on white."""
    wide = max(picture.shape[1] for picture in panels)
    rows = [np.pad(p, ((0, 4), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in panels]
    return np.concatenate(rows, axis=0)


class Panels:
    """Image | truth | prediction of the first examples of a split, collected in any order while it is scored."""

    def __init__(self, source: Sequence[Example], palette: UInt8[np.ndarray, "classes 3"], count: int = 8):
        self._palette = palette
        self._panels: dict[str, np.ndarray | None] = {source[i].name: None for i in range(min(count, len(source)))}

    def add(self, example: Example, prediction: UInt8[np.ndarray, "height width"]) -> None:
        """Keeps the panel of an example, if it is one of the first."""
        if example.name in self._panels:
            self._panels[example.name] = panel(example.image, example.label, prediction, self._palette)

    def picture(self) -> UInt8[np.ndarray, "tall wide 3"] | None:
        """All of them, one below the other; None where this host has scored none of them."""
        drawn = [panel for panel in self._panels.values() if panel is not None]
        return stack(drawn) if drawn else None


def save_palette_png(
    label: UInt8[np.ndarray, "height width"], palette: UInt8[np.ndarray, "classes 3"], file: Path
) -> None:
    """Writes class indices as a PNG of mode P, as VOC's masks are; complete or not at all."""
    picture = Image.fromarray(label, mode="L")
    # All 256 colours: with fewer, Pillow stores so few bits a pixel that void (255) becomes some class.
    picture.putpalette(_colours(palette).tobytes())
    _save(picture, file)


def save_png(image: UInt8[np.ndarray, "height width 3"], file: Path) -> None:
    """Writes an RGB PNG; complete or not at all."""
    # Photographs come out no smaller with zlib's usual effort, which takes four times as long.
    _save(Image.fromarray(image), file, compress_level=1)


def _save(picture: Image.Image, file: Path, **options: int) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        picture.save(temporary, format="PNG", **options)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _colours(palette: np.ndarray) -> np.ndarray:
    """A colour for each value a label can have."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE] = VOID_COLOUR
    return colours


def _borders(label: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another class."""
    border = np.zeros(label.shape, bool)
    border[:, :-1] |= label[:, :-1] != label[:, 1:]
    border[:-1] |= label[:-1] != label[1:]
    return border
