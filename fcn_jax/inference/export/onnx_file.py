"""A network as ONNX, for images of any size."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export

from fcn_jax.config import InputConfig
from fcn_jax.data.tasks import Task, count_classes, list_suffixes
from fcn_jax.inference.export.onnx_graph import FLOAT, UINT8, UINT16, Graph, Value, make_model, translate
from fcn_jax.inference.export.program import MULTIPLE, Scores
from fcn_jax.layers import plain_methods


def make_onnx(
    scores: Scores,
    variables: Any,
    tasks: Sequence[Task],
    probabilities: bool,
    given: InputConfig = InputConfig(),  # noqa: B008
) -> onnx.ModelProto:
    """Write a network as ONNX: `image` to `class_map` uint8[batch, height, width], for other tasks `class_map_TASK`.

    The image is uint8[batch, height, width, 3] in RGB, or of the type and the channels of another input.

    Args:
        scores: from `program.make_scores`.
        variables: parameters and batch statistics, which are stored in the model.
        tasks: the tasks with their classes.
        probabilities: whether each task has a second output, `probabilities` float32[batch, height, width, classes], or
            `probabilities_TASK`.
        given: the input of the network.

    Raises:
        InputError: the network has an operation that is not translated.
    """
    batch, down, across = export.symbolic_shape("batch, down, across")
    arrays = {path: np.asarray(array) for path, array in flatten_dict(variables, sep="/").items()}
    canvas = jax.ShapeDtypeStruct((batch, MULTIPLE * down, MULTIPLE * across, given.num_channels), given.dtype)
    size = jax.ShapeDtypeStruct((batch, 2), jnp.int32)

    def of_arrays(arrays: dict[str, Any], canvas: Any, size: Any) -> Any:
        return scores(unflatten_dict(arrays, sep="/"), canvas, size)

    with plain_methods():
        program = jax.jit(of_arrays).trace(arrays, canvas, size).jaxpr

    graph = Graph()
    one = np.array([1], np.int64)
    shape = graph.add("Shape", "image")
    sides = [graph.add("Slice", shape, np.array([axis]), np.array([axis + 1])) for axis in range(3)]
    steps, pads = [], []
    for side in sides[1:]:
        more = graph.add("Add", side, np.array([MULTIPLE - 1]))
        steps.append(graph.add("Div", more, np.array([MULTIPLE])))
        pads.append(graph.add("Sub", graph.add("Mul", steps[-1], np.array([MULTIPLE])), side))
    zeros = np.zeros(5, np.int64)
    padding = graph.add("Concat", zeros, *pads, np.array([0]), axis=0)
    # onnxruntime pads no uint16.
    image = "image" if given.dtype == "uint8" else graph.add("Cast", "image", to=onnx.TensorProto.INT32)
    padded = graph.add("Pad", image, padding, np.array(0, np.uint8 if given.dtype == "uint8" else np.int32))
    length = graph.add("Cast", graph.add("Concat", *sides[1:], axis=0), to=onnx.TensorProto.INT32)
    length = graph.add("Expand", length, graph.add("Concat", sides[0], 2 * one, axis=0))

    known = [Value(array, array.shape, array.shape) for _, array in sorted(arrays.items())]
    inputs = [*known, Value(padded, canvas.shape, canvas.shape), Value(length, size.shape, size.shape)]
    symbols = {batch: sides[0], down: steps[0], across: steps[1]}
    (logits,) = translate(graph, program, inputs, symbols)
    ends = graph.add("Concat", *sides[1:], axis=0)
    cut = graph.add("Slice", logits.data, np.zeros(2, np.int64), ends, np.array([1, 2]))
    counts = count_classes(tasks)
    parts = list(zip(list_suffixes(tasks), counts, _split_scores(graph, cut, counts), strict=True))
    outputs: dict[str, Any] = {}
    for suffix, _, part in parts:
        best = graph.add("ArgMax", part, axis=3, keepdims=0)
        outputs[graph.add("Cast", best, name=f"class_map{suffix}", to=UINT8)] = (UINT8, ["batch", "height", "width"])
    for suffix, count, part in parts if probabilities else ():
        name = graph.add("Softmax", part, name=f"probabilities{suffix}", axis=3)
        outputs[name] = (FLOAT, ["batch", "height", "width", count])
    kind = UINT8 if given.dtype == "uint8" else UINT16
    return make_model(graph, {"image": (kind, ["batch", "height", "width", given.num_channels])}, outputs)


def _split_scores(graph: Graph, scores: str, counts: Sequence[int]) -> Iterator[str]:
    """Yield the scores of each task; those of a single one are not cut."""
    first = 0
    for count in counts:
        ends = np.array([first]), np.array([first + count]), np.array([3])
        yield scores if len(counts) == 1 else graph.add("Slice", scores, *ends)
        first += count
