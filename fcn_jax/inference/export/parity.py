"""Whether an exported file computes what its network computes, on images."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt8

from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.data.tasks import split_maps, split_scores
from fcn_jax.errors import ExportDiffers
from fcn_jax.inference.explain.heat_maps import compute_probabilities
from fcn_jax.inference.export.program import Scores
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.inference.tiles import choose_canvas

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
        class_map: uint8[height, width], of several tasks uint8[height, width, tasks].
        logits: float32[height, width, classes]; None if the file does not show them.
        probabilities: float32[height, width, classes], those of all tasks side by side; None if the file has none.
    """

    class_map: UInt8[np.ndarray, "height width *tasks"]
    logits: Float[np.ndarray, "height width classes"] | None
    probabilities: Float[np.ndarray, "height width classes"] | None = None


class Parity(NamedTuple):
    """How an exported file compares with its network, in one task.

    Attributes:
        images: number of images, parts of odd sizes among them; images are cut to `LARGEST` pixels a side.
        pixels: number of their pixels.
        other_classes: pixels with another class. In each of them the two classes have nearly the same logit.
        largest_margin: the largest difference of those two logits, in units of the image's largest logit.
        largest_difference: the largest difference of a logit, in the same units; None if the file shows none.
        largest_probability_difference: the largest difference of a probability, 0 to 1; None if the file has none.
        mean_iu: of the file, over the labelled pixels of these images; NaN without labels.
        mean_iu_of_network: the same of the network.
    """

    images: int
    pixels: int
    other_classes: int
    largest_margin: float
    largest_difference: float | None
    largest_probability_difference: float | None
    mean_iu: float
    mean_iu_of_network: float


def compute_references(forward: Scores, variables: Any, examples: Sequence[Example]) -> Iterator[Reference]:
    """Compute what the network gives for images, and for parts of the first one of odd sizes.

    Args:
        forward: from `program.make_scores`, jitted.
        variables: parameters and batch statistics.
        examples: the images.
    """
    parts = [(example, LARGEST, LARGEST) for example in examples] + [(examples[0], *size) for size in ODD]
    for example in itertools.starmap(_cut, parts):
        height, width, *_ = example.label.shape
        batch = place_on_canvas([example], 1, choose_canvas(height, width))
        logits = np.asarray(forward(variables, batch.image, batch.size))[0, :height, :width]
        yield Reference(example, logits)


def _cut(example: Example, height: int, width: int) -> Example:
    return example._replace(image=example.image[:height, :width], label=example.label[:height, :width])


def compare(
    what: str,
    run: Callable[[Integer[np.ndarray, "1 height width channels"]], Result],
    references: Iterable[Reference],
    counts: Sequence[int],
) -> tuple[Parity, ...]:
    """Compare an exported file with its network.

    Args:
        what: the file, for the error.
        run: computes an image by the file.
        references: from `compute_references`, at least one.
        counts: number of classes of each task.

    Returns:
        How it compares in each task.

    Raises:
        ExportDiffers: a logit differs by more than `TOLERANCE`, a class where the logits are further apart, or a
            probability by more than such logits explain.
    """
    found: list[list[_Compared]] = []
    for example, logits in references:
        class_map, other, shares = run(example.image[None])
        if class_map.shape[:2] != logits.shape[:2]:
            raise ExportDiffers(
                f"{what} gives a class map of {class_map.shape[:2]} for {example.name}, an image of {logits.shape[:2]}"
            )
        parts = (
            split_maps(example.label, len(counts)),
            split_maps(class_map, len(counts)),
            split_scores(logits, counts),
            (None,) * len(counts) if other is None else split_scores(other, counts),
            (None,) * len(counts) if shares is None else split_scores(shares, counts),
        )
        found.append([_compare_task(*part) for part in zip(*parts, strict=True)])
        worst = np.max([task.worst for task in found[-1]])  # NaN if one is
        if not worst <= TOLERANCE:
            raise ExportDiffers(
                f"{what} computes something else than the network: on {example.name} by {worst:.1e} of the largest "
                f"score, and {TOLERANCE:.0e} is allowed; nothing is written. Please report it with both versions of "
                "jax and of the file's runtime"
            )
    return tuple(_add_up(images) for images in zip(*found, strict=True))


class _Compared(NamedTuple):
    """What `Parity` has, of one image: confusion matrices of the file and of the network, and no mean IU.

    `worst` is the largest of the differences, in units of the image's largest logit. Units below 1 are taken as 1 for
    probabilities.
    """

    pixels: int
    other_classes: int
    margin: float
    difference: float | None
    probability: float | None
    worst: float
    confusions: tuple[np.ndarray, np.ndarray]


def _compare_task(
    label: np.ndarray, class_map: np.ndarray, logits: np.ndarray, other: np.ndarray | None, shares: np.ndarray | None
) -> _Compared:
    """Compare what a file gives for an image in one task: its class map, and its logits and probabilities if any."""
    unit = max(float(np.abs(logits).max()), 1e-30)
    best = logits.argmax(axis=-1)
    chosen = np.take_along_axis(logits, class_map[..., None].astype(np.int64), axis=-1)[..., 0]
    ours, networks = (confusion_matrix(label, given, logits.shape[-1]) for given in (class_map, best))
    margin = float((logits.max(axis=-1) - chosen).max()) / unit
    difference = None if other is None else float(np.abs(other - logits).max()) / unit
    probability = None if shares is None else float(np.abs(shares - compute_probabilities(logits)).max())
    return _Compared(
        pixels=best.size,
        other_classes=int((best != class_map).sum()),
        margin=margin,
        difference=difference,
        probability=probability,
        # Logits that differ by d change a probability by at most d / 2, and rounding changes it however small they are.
        worst=float(np.max([margin, difference or 0.0, (probability or 0.0) / max(unit, 1.0)])),
        confusions=(ours, networks),
    )


def _add_up(images: Sequence[_Compared]) -> Parity:
    ours, networks = np.sum([image.confusions for image in images], axis=0)
    differences = [image.difference for image in images if image.difference is not None]
    probabilities = [image.probability for image in images if image.probability is not None]
    return Parity(
        images=len(images),
        pixels=sum(image.pixels for image in images),
        other_classes=sum(image.other_classes for image in images),
        largest_margin=max(image.margin for image in images),
        largest_difference=max(differences, default=None),
        largest_probability_difference=max(probabilities, default=None),
        mean_iu=compute_metrics(ours).mean_iu,
        mean_iu_of_network=compute_metrics(networks).mean_iu,
    )
