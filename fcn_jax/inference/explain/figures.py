"""All figures that explain a network on a few examples."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.inference.explain.field_figure import draw_field
from fcn_jax.inference.explain.figure import Figure
from fcn_jax.inference.explain.heat_maps import (
    draw_coarse_output,
    draw_probabilities,
    is_classifier,
    make_coarse_scores,
)
from fcn_jax.inference.explain.kernels import draw_kernels
from fcn_jax.inference.explain.receptive_field import make_gradient
from fcn_jax.inference.explain.streams import draw_streams, list_streams, weigh_streams
from fcn_jax.inference.tiles import choose_canvas
from fcn_jax.layers.backend import jit_options
from fcn_jax.models.build import Network
from fcn_jax.models.reference import LateFusion
from fcn_jax.runtime.progress import track

MOST_EXAMPLES = 4  # number of examples that the figures are computed from
LARGEST = 512  # longest side in pixels; only the middle of larger images is used, which bounds time and memory

__all__ = ["Figure", "draw_explanations"]


def draw_explanations(
    model: Network,
    variables: Any,
    input_config: InputConfig,
    examples: Sequence[Example],
    class_names: Sequence[str],
    palette: UInt8[np.ndarray, "classes 3"],
) -> list[Figure]:
    """Draw the figures that apply to a network; there are none for late fusion.

    These are the detail of each stream and what each skip adds (FCN-16s and FCN-8s), the receptive field, the learned
    upsampling kernels, class heat maps, and the coarse output (FCN-32s). The first 4 examples are used, and of images
    larger than 512 pixels the middle. All are computed on one canvas, so that each function is compiled once.

    Args:
        model: the network.
        variables: its parameters and batch statistics.
        input_config: the colour order, mean and standard deviation that the network expects.
        examples: images with labels of the first task; there may be none, which leaves the kernels.
        class_names: the name of each class of the first task, which alone is shown.
        palette: the colour of each class, RGB.
    """
    if isinstance(model, LateFusion):  # its score layers and kernels are those of several networks
        return []
    kernels = draw_kernels(model, variables["params"])
    shown = [cut_middle(example) for example in examples[:MOST_EXAMPLES]]
    if not shown:
        return kernels
    sides = np.array([example.label.shape for example in shown])
    canvas = choose_canvas(*sides.max(axis=0).tolist())

    def compute(function: Any, example: Example) -> Any:
        batch = place_on_canvas([example], 1, canvas)
        return jax.device_get(function(variables, batch.image, batch.size))

    def compile_for_pixels(function: Any) -> Any:
        @partial(jax.jit, **jit_options(training=False))
        def run(variables: Any, image: jax.Array, size: jax.Array) -> Any:
            return function(variables, normalise(image, input_config), size)

        return run

    # Each row adds a stream to the row before. The last one has all, which gives the network's own logits.
    sums = jnp.tri(max(len(list_streams(model)), 1), len(list_streams(model)))
    run_streams = compile_for_pixels(lambda v, image, size: weigh_streams(model, v, image, size, sums)[:, 0])
    run_gradient = compile_for_pixels(make_gradient(model, len(class_names)))
    class_maps, gradients, logits = [], [], []
    for example in track(shown, "explaining the network on", len(shown), "images"):
        height, width = example.label.shape
        scores = compute(run_streams, example)[:, :height, :width, : len(class_names)]
        class_maps.append(scores.argmax(axis=-1).astype(np.uint8))
        logits.append(scores[-1].copy())  # a view would keep the scores of all streams
        gradients.append(compute(run_gradient, example)[:height, :width])

    figures = draw_streams(model, shown, class_maps, class_names, palette)
    figures += draw_field(model, shown, gradients)
    figures += kernels
    richest = max(range(len(shown)), key=lambda index: len(np.unique(class_maps[index][-1])))
    example = shown[richest]
    figures.append(draw_probabilities(example, logits[richest], class_names, palette))
    if is_classifier(model):
        scores, (rows, columns) = compute(compile_for_pixels(make_coarse_scores(model)), example)
        scores = scores[:rows, :columns, : len(class_names)]
        figures.append(draw_coarse_output(example, scores, class_names, palette))
    return figures


def cut_middle(example: Example) -> Example:
    """Cut the middle out of an image that has a side of more than `LARGEST` pixels."""
    starts = [max(length - LARGEST, 0) // 2 for length in example.label.shape]
    rows, columns = (slice(start, start + LARGEST) for start in starts)
    return example._replace(image=example.image[rows, columns], label=example.label[rows, columns])
