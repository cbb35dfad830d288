"""What the page of a demo shows for a photograph. Nothing here knows of the page."""

import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fcn_jax.data.tasks import count_maps, split_maps
from fcn_jax.errors import InputError, OutOfMemory
from fcn_jax.inference.read_image import read_image
from fcn_jax.inference.visualize import overlay, save_palette_png, save_png
from fcn_jax.runtime.memory import is_out_of_memory

SIDE = 1280  # pixels, the longer side of what the page shows; more would make the slider slow
KEPT = 8  # former drawings of a photograph that a browser may still ask for

Segment = Callable[[UInt8[np.ndarray, "height width 3"]], UInt8[np.ndarray, "height width *tasks"]]


class Answer(NamedTuple):
    """A photograph and its classes, no larger than the page shows them.

    Attributes:
        image: RGB.
        class_map: the class of each pixel.
        shares: for each class found its share of the photograph's pixels, 0 to 1, the largest first.
        folder: the folder of its files, which belongs to this answer alone.
        file: the class map of the whole photograph, a palette PNG.
        warnings: a sentence for each part of the file that is left out.
    """

    image: UInt8[np.ndarray, "height width 3"]
    class_map: UInt8[np.ndarray, "height width"]
    shares: dict[int, float]
    folder: Path
    file: Path
    warnings: list[str]


def answer(segment: Segment, palette: UInt8[np.ndarray, "classes 3"], photograph: Path, folder: Path) -> Answer:
    """Segment a photograph, and write its class map into a new folder in `folder`.

    Args:
        segment: computes the class of each pixel, such as a `Segmenter`; of several tasks the first one is shown.
        palette: the colour of each class.
        photograph: an image file of any kind and size.
        folder: the folder in which that of the answer is made.

    Raises:
        InputError: the file cannot be read as an image; the text does not have its path.
        OutOfMemory: memory ran out.
    """
    warnings: list[str] = []
    try:
        image = read_image(photograph, warnings.append)
    except InputError as error:
        raise InputError(str(error).replace(str(photograph), photograph.name)) from error
    try:
        class_map = segment(image)
        class_map = split_maps(class_map, count_maps(class_map))[0]
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = image.shape[:2]
        raise OutOfMemory(
            f"memory ran out for {photograph.name}, which has {width}x{height} pixels; give a smaller image, or start "
            "the demo with a smaller --tile"
        ) from error
    own = Path(tempfile.mkdtemp(dir=folder))
    file = own / f"{photograph.stem}.png"
    save_palette_png(class_map, palette, file)
    classes, counts = np.unique(class_map, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {int(classes[i]): float(counts[i] / class_map.size) for i in order}
    return Answer(_shrink(image, Image.Resampling.LANCZOS), _shrink(class_map), shares, own, file, warnings)


def draw(given: Answer, palette: UInt8[np.ndarray, "classes 3"], opacity: float, shown: Collection[int]) -> Path:
    """Draw the classes that are shown over the photograph, at opacity 0 the photograph alone, and return the PNG file.

    Args:
        given: the photograph and its class map.
        palette: the colour of each class.
        opacity: the weight of the class colours, 0 to 1.
        shown: indices of classes.
    """
    drawn = given.folder / "drawn"
    drawn.mkdir(exist_ok=True)
    former = sorted(drawn.iterdir())
    file = drawn / f"{time.monotonic_ns():020}.png"  # a new name, so that no browser shows the former picture
    save_png(overlay(given.image, given.class_map, palette, opacity, shown if opacity > 0 else ()), file)
    for old in former[:-KEPT]:
        old.unlink(missing_ok=True)
    return file


def forget(given: Answer | None) -> None:
    """Remove the files of an answer."""
    if given is not None:
        shutil.rmtree(given.folder, ignore_errors=True)


def _shrink(picture: np.ndarray, resampling: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
    """Shrink a picture so that its longer side has at most `SIDE` pixels."""
    if max(picture.shape[:2]) <= SIDE:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), resampling)
    return np.asarray(image)
