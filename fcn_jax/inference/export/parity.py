"""Whether an exported file computes what its network computes, on images."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer, UInt8

from fcn_jax.data.batches import place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.errors import ExportDiffers
from fcn_jax.inference.export.program import Scores
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.inference.tiles import choose_canvas
from fcn_jax.layers import jit_options

# In units of the largest logit of an image. Float32 has a precision of 6e-8, and a network of 50 layers adds some up.
TOLERANCE = 1e-4
# Larger images are cut to this side, because they are computed whole.
LARGEST = 1024
# Sizes of parts of the first image, besides whole images: none is a multiple of a stride, and one is a single pixel.
ODD = ((1, 1), (67, 41))


class Reference(NamedTuple):
    """An image with what the network computes for it.

    Attributes:
        example: the image and its label.
        logits: float32[height, width, classes].
    """

    example: Example
    logits: Float[np.ndarray, "height width classes"]


class Result(NamedTuple):
    """What an exported file computes for an image.

    Attributes:
        class_map: uint8[height, width].
        logits: float32[height, width, classes]; None if the file does not show them.
    """

    class_map: UInt8[np.ndarray, "height width"]
    logits: Float[np.ndarray, "height width classes"] | None


class Parity(NamedTuple):
    """How an exported file compares with its network.

    Attributes:
        images: number of images.
        pixels: number of their pixels.
        other_classes: pixels with another class. In each of them the two classes have nearly the same logit.
        largest_margin: the largest difference of those two logits, in units of the image's largest logit.
        largest_difference: the largest difference of a logit, in the same units; None if the file shows none.
        mean_iu: of the file, over the labelled pixels of all whole images; NaN without labels.
        mean_iu_of_network: the same of the network.
    """

    images: int
    pixels: int
    other_classes: int
    largest_margin: float
    largest_difference: float | None
    mean_iu: float
    mean_iu_of_network: float


def compute_references(scores: Scores, variables: Any, examples: Sequence[Example]) -> Iterator[Reference]:
    """Compute what the network gives for images, and for parts of the first one of odd sizes."""
    forward = jax.jit(scores, **jit_options(training=False))
    parts = [(example, LARGEST, LARGEST) for example in examples] + [(examples[0], *size) for size in ODD]
    for example in itertools.starmap(_cut, parts):
        height, width = example.label.shape
        batch = place_on_canvas([example], 1, choose_canvas(height, width))
        logits = np.asarray(forward(variables, batch.image, batch.size))[0, :height, :width]
        yield Reference(example, logits)


def _cut(example: Example, height: int, width: int) -> Example:
    return example._replace(image=example.image[:height, :width], label=example.label[:height, :width])


def compare(
    what: str, run: Callable[[Integer[np.ndarray, "1 height width channels"]], Result], references: Iterable[Reference]
) -> Parity:
    """Compare an exported file with its network.

    Args:
        what: the file, for the error.
        run: computes an image by the file.
        references: from `compute_references`.

    Raises:
        ExportDiffers: a logit differs by more than `TOLERANCE`, or a class where the logits are further apart.
    """
    images = pixels = others = 0
    margin, difference = 0.0, None
    confusions = None
    for example, logits in references:
        class_map, other = run(example.image[None])
        if class_map.shape != logits.shape[:2]:
            raise ExportDiffers(
                f"{what} gives a class map of {class_map.shape} for {example.name}, an image of {logits.shape[:2]}"
            )
        unit = max(float(np.abs(logits).max()), 1e-30)
        best = logits.argmax(axis=-1)
        chosen = np.take_along_axis(logits, class_map[..., None].astype(np.int64), axis=-1)[..., 0]
        margins = (logits.max(axis=-1) - chosen) / unit
        images, pixels, others = images + 1, pixels + best.size, others + int((best != class_map).sum())
        margin = max(margin, float(margins.max()))
        if other is not None:
            difference = max(difference or 0.0, float(np.abs(other - logits).max()) / unit)
        worst = max(margin, difference or 0.0)
        if not worst <= TOLERANCE:
            raise ExportDiffers(
                f"{what} computes something else than the network: on {example.name} by {worst:.1e} of the largest "
                f"score, and {TOLERANCE:.0e} is allowed; nothing is written. Please report it with both versions of "
                "jax and of the file's runtime"
            )
        classes = logits.shape[-1]
        counts = [confusion_matrix(example.label, map_, classes) for map_ in (class_map, best)]
        confusions = counts if confusions is None else [a + b for a, b in zip(confusions, counts, strict=True)]
    assert confusions is not None
    mean_iu, of_network = (compute_metrics(confusion).mean_iu for confusion in confusions)
    return Parity(images, pixels, others, margin, difference, mean_iu, of_network)
