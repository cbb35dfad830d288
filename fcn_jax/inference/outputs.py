"""The files that are written for each segmented image."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from fcn_jax.data.dataset import Example
from fcn_jax.data.large_images import lift_limit
from fcn_jax.data.tasks import Task, split_maps, split_scores
from fcn_jax.errors import InputError
from fcn_jax.inference.segment import Segmented
from fcn_jax.inference.visualize import add_legend, overlay, save_grey_png, save_palette_png, save_png
from fcn_jax.runtime.files import replace_atomically

# Names of the files about all images, with what the names of a further task end with.
COUNTS, POLYGONS = "counts{}.csv", "polygons{}.json"


@dataclass(frozen=True)
class Outputs:
    """What is written for each image: always `<stem>.png`, the mask, and `<stem>_overlay.png`.

    Further tasks have files of the same kinds, with `<stem>_TASK` in place of `<stem>`.

    Attributes:
        palette: the colour of each class, RGB.
        class_names: the name of each class, for the legend.
        values: the value of each class in masks, which are then grey PNGs; None: palette PNGs with the class's index.
        alpha: weight of the class colours in the overlay, 0 to 1.
        legend: whether the overlay has the names of its classes below it.
        probabilities: whether `<stem>.npz` is written; see `save_probabilities`.
        counts: whether `counts.csv` is written for all images; see `summaries.write_counts`.
        polygons: whether `polygons.json` is written for all images; see `summaries.write_polygons`.
        others: the tasks after the first one, to which `palette`, `class_names` and `values` belong.
        other_values: `values` of each of them.

    Raises:
        InputError: `alpha` is not within 0 to 1.
    """

    palette: UInt8[np.ndarray, "classes 3"]
    class_names: tuple[str, ...] = ()
    values: UInt8[np.ndarray, "classes"] | None = None
    alpha: float = 0.5
    legend: bool = False
    probabilities: bool = False
    counts: bool = False
    polygons: bool = False
    others: tuple[Task, ...] = ()
    other_values: tuple[UInt8[np.ndarray, "..."], ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}; it must be within 0 (the image alone) and 1 (the colours alone)")

    def name_files(self, stem: str) -> tuple[str, ...]:
        """Return the names of the files of an image, the mask first."""
        endings = (".png", "_overlay.png", *((".npz",) if self.probabilities else ()))
        return tuple(f"{stem}{suffix}{ending}" for suffix, _ in self.split_tasks() for ending in endings)

    def name_summaries(self) -> tuple[str, ...]:
        """Return the names of the files about all images."""
        names = ((self.counts, COUNTS), (self.polygons, POLYGONS))
        return tuple(name.format(suffix) for suffix, _ in self.split_tasks() for wanted, name in names if wanted)

    def split_tasks(self) -> list[tuple[str, "Outputs"]]:
        """Return what is written for each task, with what is added to the stem in the names of its files."""
        first = dataclasses.replace(self, others=(), other_values=None)
        values = self.other_values or (None,) * len(self.others)
        others = [
            (f"_{name}", dataclasses.replace(first, palette=palette, class_names=class_names, values=own))
            for (name, class_names, palette, _), own in zip(self.others, values, strict=True)
        ]
        return [("", first), *others]


def write_results(result: Segmented, out: Path, outputs: Outputs) -> Path:
    """Write the files of an image, the mask last, and return the mask. Each file is complete or not there."""
    written = outputs.split_tasks()
    maps = split_maps(result.class_map, len(written))
    shares: tuple[Any, ...] = (None,) * len(written)
    if outputs.probabilities:
        assert result.probabilities is not None, "the forward pass gives no probabilities"
        shares = split_scores(result.probabilities, [len(part.palette) for _, part in written])
    results = zip(written, maps, shares, strict=True)
    files = [
        _write_task(result.example, class_map, share, out / f"{result.example.name}{suffix}", part)
        for (suffix, part), class_map, share in reversed(list(results))
    ]
    return files[-1]


def _write_task(
    example: Example,
    class_map: UInt8[np.ndarray, "height width"],
    probabilities: Float16[np.ndarray, "height width classes"] | None,
    stem: Path,
    outputs: Outputs,
) -> Path:
    """Write the files of a task, the mask last, and return the mask."""
    picture = overlay(example.picture, class_map, outputs.palette, outputs.alpha)
    if outputs.legend:
        picture = add_legend(picture, class_map, outputs.palette, outputs.class_names)
    save_png(picture, stem.with_name(f"{stem.name}_overlay.png"))
    if probabilities is not None:
        save_probabilities(probabilities, stem.with_name(f"{stem.name}.npz"))
    file = stem.with_name(f"{stem.name}.png")
    if outputs.values is None:
        save_palette_png(class_map, outputs.palette, file)
    else:
        save_grey_png(outputs.values[class_map], file)
    return file


def read_class_map(file: Path, outputs: Outputs) -> UInt8[np.ndarray, "height width"]:
    """Read the class map from a mask that `write_results` has written.

    Raises:
        InputError: the mask is missing or damaged.
    """
    try:
        with lift_limit(), Image.open(file) as picture:
            mask = np.array(picture)
    except Exception as error:  # Pillow raises errors of many types for damaged data
        raise InputError(f"{file} cannot be read ({error}); remove it, and give the same command again") from error
    if outputs.values is None:
        return mask
    table = np.zeros(256, np.uint8)
    table[outputs.values] = np.arange(len(outputs.values), dtype=np.uint8)
    return table[mask]


def save_probabilities(probabilities: Float16[np.ndarray, "height width classes"], file: Path) -> None:
    """Write an .npz file of the probabilities of the classes and their entropy.

    Its arrays are `probabilities`, float16[height, width, classes], 0 to 1, and `entropy`, float16[height, width], the
    entropy of each pixel in nats: 0 if the network is sure, ln(classes) if all classes are as likely.
    """
    shares = probabilities.astype(np.float32)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(axis=-1)
    with replace_atomically(file, sync=False) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, probabilities=probabilities, entropy=np.maximum(entropy, 0).astype(np.float16))
