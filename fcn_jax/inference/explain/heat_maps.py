"""Heat maps: the probability of each class, and the coarse output of a classifier made convolutional."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import IGNORE
from fcn_jax.inference.explain.figure import Figure, Panel, colour_shares, draw_grid, format_percent
from fcn_jax.inference.visualize import colourise
from fcn_jax.models.build import Network
from fcn_jax.models.fcn import FCN

MOST_CLASSES = 10  # number of classes that are shown

CoarseScores = Callable[
    [Any, Float[Array, "1 height width 3"], Int[Array, "1 2"]],
    tuple[Float[Array, "rows columns classes"], Int[Array, "2"]],
]


def compute_probabilities(logits: Float[np.ndarray, "*pixels classes"]) -> Float[np.ndarray, "*pixels classes"]:
    """Compute the probability of each class from logits (softmax)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def choose_classes(label: UInt8[np.ndarray, "height width"], class_map: UInt8[np.ndarray, "height width"]) -> list[int]:
    """Choose the classes that truth or prediction have, those with most pixels first, at most `MOST_CLASSES`."""
    both = np.concatenate([label[label != IGNORE], class_map.reshape(-1)])
    classes, counts = np.unique(both, return_counts=True)
    return classes[np.argsort(-counts, kind="stable")][:MOST_CLASSES].tolist()


def draw_probabilities(
    example: Example,
    logits: Float[np.ndarray, "height width classes"],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "classes 3"],
) -> Figure:
    """Draw the probability of each class that is in the truth or the prediction of an example."""
    class_map = logits.argmax(axis=-1).astype(np.uint8)
    probabilities = compute_probabilities(logits)
    classes = choose_classes(example.label, class_map)
    panels = [Panel("image", example.picture), Panel("prediction", colourise(class_map, palette))]
    for index in classes:
        heat = probabilities[..., index]
        panels.append(Panel(f"{class_names[index]}: {format_percent(float(heat.mean()))}", colour_shares(heat)))
    names = ", ".join(class_names[index] for index in classes)
    return Figure(
        "Class heat maps",
        "Probability of each class that truth or prediction have, from white, 0, over yellow and red to dark purple, "
        "1. The number is the mean over the image.",
        f"An image, its class map, and a heat map for each of the classes {names}.",
        draw_grid([panels[start : start + 4] for start in range(0, len(panels), 4)]),
    )


def make_coarse_scores(model: Network) -> CoarseScores:
    """Make the function (variables, image, size) -> scores of `score_fr`, and how many rows and columns are image's."""
    wanted = {("backbone",), ("score_fr",)}

    def compute(variables: Any, image: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, state = model.apply(
            variables,
            image,
            size,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: module.path in wanted and method == "__call__",
        )
        found: Any = state["intermediates"]
        _, _, top = found["backbone"]["__call__"][0]
        return found["score_fr"]["__call__"][0][0].astype("float32"), top.size[0]

    return compute


def is_classifier(model: Network) -> bool:
    """Return whether the coarsest scores are all that a network has, as in a classifier made convolutional."""
    return isinstance(model, FCN) and model.stride == 32


def draw_coarse_output(
    example: Example,
    scores: Float[np.ndarray, "rows columns classes"],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "classes 3"],
) -> Figure:
    """Draw the output of a classifier made convolutional, at its own resolution (paper, figure 2)."""
    class_map = scores.argmax(axis=-1).astype(np.uint8)
    probabilities = compute_probabilities(scores)
    frequent = choose_classes(np.full_like(class_map, IGNORE), class_map)
    # Class 0 is the background in most data sets, so another one says more.
    chosen = next((index for index in frequent if index), frequent[0])
    rows, columns = class_map.shape
    height, width = example.label.shape
    return Figure(
        "Coarse output",
        f"The fully connected layers as convolutions classify {rows} x {columns} windows of the {height} x {width} "
        f"image at once: the class of each cell of score_fr, and the probability of {class_names[chosen]} from white, "
        "0, to dark purple, 1 (Long et al. 2015, figure 2).",
        f"An image beside a class map of {rows} x {columns} cells and the heat map of {class_names[chosen]}.",
        draw_grid(
            [
                [
                    Panel("image", example.picture),
                    Panel(f"classes, {rows} x {columns} cells", colourise(class_map, palette)),
                    Panel(class_names[chosen], colour_shares(probabilities[..., chosen])),
                ]
            ]
        ),
    )
