"""What each stream of an FCN adds: class maps of the coarsest scores alone, with pool4, with pool3 (paper, figure 4).

From its score layers on an FCN is linear, so its logits are the sum of the parts of its streams. A part is what the
network computes when the scores of all other streams are 0.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.inference.explain.figure import TEXT_SIZE, WIDTH, Figure, Panel, draw_grid, format_percent, to_grey
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.inference.visualize import colourise, draw_legend
from fcn_jax.models.build import Network
from fcn_jax.models.fcn import FCN

STREAMS = ("score_fr", "score_pool4", "score_pool3")
# Colours that people who see fewer colours can tell apart (Okabe & Ito 2008).
CHANGES = ((0, 114, 178), (213, 94, 0), (240, 228, 66))
KINDS = ("becomes right", "becomes wrong", "changes and stays wrong")

ClassMaps = UInt8[np.ndarray, "streams _ _"]


def list_streams(model: Network) -> tuple[str, ...]:
    """List the score layers of a network, the coarsest first; a network that fuses no maps has none."""
    return STREAMS[: {32: 1, 16: 2, 8: 3}[model.stride]] if isinstance(model, FCN) else ()


def weigh_streams(
    model: Network,
    variables: Any,
    images: Float[Array, "batch height width channels"],
    size: Int[Array, "batch 2"],
    weights: Float[Array, "rows streams"],
) -> Float[Array, "rows batch height width classes"]:
    """Compute the logits of a network whose streams have weights. The backbone is computed once.

    Args:
        model: the network.
        variables: its parameters and batch statistics.
        images: normalized images.
        size: rows and columns that belong to each image.
        weights: for each row of the result a factor on the scores of each of `list_streams`. Ones give the network's
            own logits, and a single 1 gives the part of a stream.
    """
    places: dict[tuple[str, ...], int] = {(name,): index for index, name in enumerate(list_streams(model))}

    def compute_logits(row: Array) -> Array:
        def weigh(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
            result = call(*arguments, **keywords)
            if context.method_name != "__call__" or context.module.path not in places:
                return result
            return result * row[places[context.module.path]].astype(result.dtype)

        with nn.intercept_methods(weigh):
            return model.apply(variables, images, size)  # pyright: ignore[reportReturnType]

    # Only what comes after the weights gets the axis of the rows.
    return jax.vmap(compute_logits)(weights)


def draw_streams(
    model: Network,
    examples: Sequence[Example],
    class_maps: Sequence[ClassMaps],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "classes 3"],
) -> list[Figure]:
    """Draw the class maps with more and more streams, and the pixels that each stream changes.

    Args:
        model: the network; one with a single stream has no such figures.
        examples: images with labels.
        class_maps: for each example its class maps with the first 1, 2, ... streams.
        class_names: the name of each class.
        palette: the colour of each class.
    """
    streams = list_streams(model)
    if len(streams) < 2:
        return []
    scores = [_score(examples, [maps[index] for maps in class_maps], len(class_names)) for index in range(len(streams))]
    return [
        _draw_detail(streams, scores, examples, class_maps, class_names, palette),
        _draw_changes(streams, examples, class_maps),
    ]


def _draw_detail(
    streams: Sequence[str],
    scores: Sequence[float],
    examples: Sequence[Example],
    class_maps: Sequence[ClassMaps],
    class_names: Sequence[str],
    palette: np.ndarray,
) -> Figure:
    headings = ["image"]
    for index, (name, score) in enumerate(zip(streams, scores, strict=True)):
        headings.append(f"{'+ ' if index else ''}{name}\nmean IU {format_percent(score)}")
    rows = []
    for index, (example, maps) in enumerate(zip(examples, class_maps, strict=True)):
        pictures = [example.picture, *(colourise(m, palette) for m in maps), colourise(example.label, palette)]
        row_headings = [*headings, "truth"] if index == 0 else [""] * len(pictures)
        rows.append([Panel(*pair) for pair in zip(row_headings, pictures, strict=True)])
    shown = [np.unique(array) for e, m in zip(examples, class_maps, strict=True) for array in (e.label, m)]
    legend = draw_legend(np.unique(np.concatenate(shown)), palette, class_names, WIDTH, TEXT_SIZE)
    listing = ", ".join(
        f"{format_percent(score)} with {name}{' too' if index else ' alone'}"
        for index, (name, score) in enumerate(zip(streams, scores, strict=True))
    )
    return Figure(
        "Detail by stream",
        "Class maps from the coarsest scores alone, and with each finer stream added, all upsampled by the network's "
        f"own kernels. Mean IU on the images shown: {listing}. The last one is the network's own prediction "
        "(Long et al. 2015, figure 4).",
        f"{_count(examples)} in rows; in columns the image, the class maps of {len(streams)} sums of streams, and the "
        f"truth. Mean IU: {listing}.",
        draw_grid(rows, legend=legend),
    )


def _draw_changes(streams: Sequence[str], examples: Sequence[Example], class_maps: Sequence[ClassMaps]) -> Figure:
    counts = np.zeros((len(streams) - 1, 3))
    rows = [[Panel("" if index else "image", example.picture)] for index, example in enumerate(examples)]
    for row, example, maps in zip(rows, examples, class_maps, strict=True):
        for index, name in enumerate(streams[1:]):
            kinds = find_changes(example.label, maps[index], maps[index + 1])
            picture = to_grey(example.picture, 0.4)
            for kind, colour in enumerate(CHANGES):
                picture[kinds[kind]] = colour
            counts[index] += kinds.sum(axis=(1, 2))
            row.append(Panel("" if row is not rows[0] else f"changed by {name}", picture))
    labelled = sum(int((example.label != IGNORE).sum()) for example in examples)
    shares = counts / labelled if labelled else np.full_like(counts, np.nan)
    listing = "; ".join(
        f"{name} corrects {format_percent(right)}, spoils {format_percent(wrong)} and changes {format_percent(other)} "
        "from one wrong class to another"
        for name, (right, wrong, other) in zip(streams[1:], shares.tolist(), strict=True)
    )
    return Figure(
        "What each skip adds",
        "Pixels whose class changes when the stream is added: it becomes right (blue), becomes wrong (orange), or was "
        f"and stays wrong (yellow). Void pixels are left out. Of the labelled pixels {listing}.",
        f"{_count(examples)} in rows, in pale grey with the changed pixels in colour. {listing}.",
        draw_grid(rows, 280, draw_legend(np.arange(3), np.array(CHANGES, np.uint8), KINDS, 570, TEXT_SIZE)),
    )


def find_changes(
    label: UInt8[np.ndarray, "height width"],
    before: UInt8[np.ndarray, "height width"],
    after: UInt8[np.ndarray, "height width"],
) -> np.ndarray:
    """Find the labelled pixels whose class changes.

    Returns:
        bool[3, height, width]: pixels that become right, that become wrong, and that were and stay wrong.
    """
    changed = (before != after) & (label != IGNORE)
    was_right, is_right = before == label, after == label
    return np.stack([changed & is_right, changed & was_right, changed & ~is_right & ~was_right])


def _score(examples: Sequence[Example], class_maps: Sequence[np.ndarray], num_classes: int) -> float:
    """Compute the mean IU of class maps on examples."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for example, class_map in zip(examples, class_maps, strict=True):
        confusion += confusion_matrix(example.label, class_map, num_classes)
    return compute_metrics(confusion).mean_iu


def _count(examples: Sequence[Example]) -> str:
    return f"{len(examples)} image{'s' * (len(examples) > 1)}"
