"""Translate a network, as JAX traces it, into an ONNX graph for images of any size.

Each operation of the trace has one translation here. What depends on parameters alone is computed now and stored.
Shapes may hold symbols of `jax.export`; the graph computes them from the shape of its input. Convolutions, transposed
convolutions and pooling are ONNX's own, between two transpositions, because ONNX puts channels first; runtimes move and
cancel these.
"""

import hashlib
import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from onnx import TensorProto, helper, numpy_helper

from fcn_jax.errors import InputError

OPSET = 17
END = np.iinfo(np.int64).max  # "to the end", in ONNX's Slice

# Element by element: ONNX's operation, and the same for values that are known now.
_ELEMENTWISE: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "abs": ("Abs", jnp.abs),
    "add": ("Add", jnp.add),
    "and": ("And", jnp.logical_and),
    "div": ("Div", jax.lax.div),
    "exp": ("Exp", jnp.exp),
    "gt": ("Greater", jnp.greater),
    "log": ("Log", jnp.log),
    "lt": ("Less", jnp.less),
    "max": ("Max", jnp.maximum),
    "min": ("Min", jnp.minimum),
    "mul": ("Mul", jnp.multiply),
    "neg": ("Neg", jnp.negative),
    "pow": ("Pow", jnp.power),
    "sign": ("Sign", jnp.sign),
    "sqrt": ("Sqrt", jnp.sqrt),
    "sub": ("Sub", jnp.subtract),
}


class Value(NamedTuple):
    """A value of the graph.

    Attributes:
        data: the name of a tensor, or an array that is known now.
        shape: its shape in the trace.
        dims: its shape in the graph. It has 1 where the trace repeats one value, which ONNX's operations do by
            themselves.
    """

    data: str | np.ndarray
    shape: tuple[Any, ...]
    dims: tuple[Any, ...]


class Graph:
    """Nodes and stored arrays of a graph that is being written. The same operation on the same tensors is one node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._known: dict[Any, str] = {}

    def store(self, array: np.ndarray) -> str:
        """Store an array, once, and return its name."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest())
        if key not in self._known:
            name = f"constant_{len(self.arrays)}"
            self._known[key], self.arrays[name] = name, array
        return self._known[key]

    def add(self, operation: str, *inputs: str | np.ndarray, name: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return the output's name."""
        names = [x if isinstance(x, str) else self.store(x) for x in inputs]
        key = (operation, *names, repr(sorted(attributes.items())))
        if name or key not in self._known:
            out = name or f"{operation.lower()}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(operation, names, [out], name=f"node_{len(self.nodes)}", **attributes))
            self._known[key] = out
        return self._known[key]


def translate(
    graph: Graph, program: ClosedJaxpr, inputs: Sequence[Value], symbols: Mapping[Any, str]
) -> Sequence[Value]:
    """Add the operations of a traced program to a graph.

    Args:
        graph: the graph.
        program: the program, as in `jax.jit(f).trace(*args).jaxpr`, made in `layers.plain_methods`.
        inputs: its arguments.
        symbols: for each symbol in its shapes the tensor, int64[1], that holds its value.

    Returns:
        Its results.

    Raises:
        InputError: the program has an operation without a translation.
    """
    return _Translation(graph, symbols).run(program.jaxpr, [_know(x) for x in program.consts], inputs)


def _know(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array, array.shape, array.shape)


class _Translation:
    """The translations of single operations."""

    def __init__(self, graph: Graph, symbols: Mapping[Any, str]) -> None:
        self.graph, self.symbols = graph, symbols

    def run(self, program: Jaxpr, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
        values = dict(zip([*program.constvars, *program.invars], [*consts, *inputs], strict=True))

        def read(variable: Any) -> Value:
            return _know(variable.val) if isinstance(variable, Literal) else values[variable]

        for equation in program.eqns:
            results = self._translate(equation, [read(x) for x in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(x) for x in program.outvars]

    def _translate(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if isinstance(inner, ClosedJaxpr):
            return self.run(inner.jaxpr, [_know(x) for x in inner.consts], inputs)
        shape = equation.outvars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
        dtype = equation.outvars[0].aval.dtype  # pyright: ignore[reportAttributeAccessIssue]
        if name in _ELEMENTWISE:
            return [self._elementwise(*_ELEMENTWISE[name], inputs, shape)]
        if name == "convert_element_type":
            code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return [self._elementwise("Cast", lambda x: jnp.asarray(x, dtype), inputs, shape, to=code)]
        method = getattr(self, f"_{name}", None)
        if method is None:
            raise InputError(f"this network cannot be written as ONNX: it has the operation {name}; export it without")
        return [method(*inputs, **{**params, "shape": shape, "dtype": dtype})]

    def _elementwise(
        self, operation: str, known: Callable[..., Any], inputs: list[Value], shape: tuple[Any, ...], **attributes: Any
    ) -> Value:
        dims = tuple(
            next((d for d in axis if not (isinstance(d, int) and d == 1)), 1)
            for axis in zip(*(x.dims or (1,) * len(shape) for x in inputs), strict=True)
        )
        if all(isinstance(x.data, np.ndarray) for x in inputs):
            return Value(np.asarray(known(*(x.data for x in inputs))), shape, dims)
        if operation == "Max" and any(isinstance(x.data, np.ndarray) and not x.data.any() for x in inputs):
            (x,) = (x for x in inputs if not (isinstance(x.data, np.ndarray) and not x.data.any()))
            return Value(self.graph.add("Relu", x.data), shape, dims)
        return Value(self.graph.add(operation, *(x.data for x in inputs), **attributes), shape, dims)

    def _ne(self, x: Value, y: Value, *, shape: Any, **_: Any) -> Value:
        equal = self._elementwise("Equal", jnp.equal, [x, y], shape)
        return self._elementwise("Not", jnp.logical_not, [equal], shape)

    def _rem(self, x: Value, y: Value, *, shape: Any, **_: Any) -> Value:
        return self._elementwise("Mod", jax.lax.rem, [x, y], shape, fmod=1)  # the sign of the first, as in C

    def _rsqrt(self, x: Value, *, shape: Any, **_: Any) -> Value:
        root = self._elementwise("Sqrt", jnp.sqrt, [x], shape)
        return self._elementwise("Reciprocal", jnp.reciprocal, [root], shape)

    def _select_n(self, which: Value, no: Value, yes: Value, *, shape: Any, **_: Any) -> Value:
        return self._elementwise("Where", jnp.where, [which, yes, no], shape)

    def _stop_gradient(self, x: Value, **_: Any) -> Value:
        return x

    _copy = _optimization_barrier = _stop_gradient

    def _iota(self, *, shape: Any, dtype: Any, dimension: int, **_: Any) -> Value:
        dims = tuple(length if axis == dimension else 1 for axis, length in enumerate(shape))
        form = np.array([-1 if axis == dimension else 1 for axis in range(len(shape))], np.int64)
        if isinstance(shape[dimension], int):
            return Value(np.arange(shape[dimension], dtype=dtype).reshape(form), shape, dims)
        zero, one = np.array(0, np.int64), np.array(1, np.int64)
        length = self.graph.add("Squeeze", self._measure(shape[dimension]), np.array([0], np.int64))
        numbers = self.graph.add("Range", zero, length, one)
        numbers = self.graph.add("Cast", numbers, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        return Value(self.graph.add("Reshape", numbers, form), shape, dims)

    def _broadcast_in_dim(self, x: Value, *_inputs: Value, shape: Any, broadcast_dimensions: Any, **_: Any) -> Value:
        places = dict(zip(broadcast_dimensions, x.dims, strict=True))
        dims = tuple(places.get(axis, 1) for axis in range(len(shape)))
        if isinstance(x.data, np.ndarray):
            return Value(x.data.reshape(dims), shape, dims)
        new = [axis for axis in range(len(shape)) if axis not in places]
        return Value(self.graph.add("Unsqueeze", x.data, np.array(new, np.int64)) if new else x.data, shape, dims)

    def _reshape(self, x: Value, *, shape: Any, **_: Any) -> Value:
        _require(isinstance(x.data, np.ndarray) and x.dims == x.shape, "a reshaped map")
        return Value(np.asarray(x.data).reshape(shape), shape, shape)

    def _squeeze(self, x: Value, *, shape: Any, dimensions: Any, **_: Any) -> Value:
        dims = tuple(dim for axis, dim in enumerate(x.dims) if axis not in dimensions)
        if isinstance(x.data, np.ndarray):
            return Value(x.data.reshape(dims), shape, dims)
        return Value(self.graph.add("Squeeze", x.data, np.array(dimensions, np.int64)), shape, dims)

    def _transpose(self, x: Value, *, shape: Any, permutation: Any, **_: Any) -> Value:
        dims = tuple(x.dims[axis] for axis in permutation)
        if isinstance(x.data, np.ndarray):
            return Value(x.data.transpose(permutation), shape, dims)
        return Value(self.graph.add("Transpose", x.data, perm=list(permutation)), shape, dims)

    def _rev(self, x: Value, *, shape: Any, dimensions: Any, **_: Any) -> Value:
        axes = np.array(dimensions, np.int64)
        lows, ends = np.full(len(axes), -1, np.int64), np.full(len(axes), -END, np.int64)
        return Value(self.graph.add("Slice", x.data, lows, ends, axes, lows), shape, x.dims)

    def _slice(self, x: Value, *, shape: Any, start_indices: Any, limit_indices: Any, strides: Any, **_: Any) -> Value:
        cuts = []
        for axis, (start, limit, length) in enumerate(zip(start_indices, limit_indices, x.shape, strict=True)):
            step = 1 if strides is None else strides[axis]
            behind = limit - length  # an integer also where both are symbols, and then at most 0
            if (start, behind, step) != (0, 0, 1):
                cuts.append((start, limit if not isinstance(behind, int) else behind or END, axis, step))
        if not cuts:
            return x._replace(shape=shape)
        x = self._repeat(x, [axis for *_, axis, _ in cuts])
        starts, ends, axes, steps = (np.array(column, np.int64) for column in zip(*cuts, strict=True))
        dims = tuple(
            length if axis in axes else dim for axis, (length, dim) in enumerate(zip(shape, x.dims, strict=True))
        )
        return Value(self.graph.add("Slice", x.data, starts, ends, axes, steps), shape, dims)

    def _pad(self, x: Value, fill: Value, *, shape: Any, padding_config: Any, **_: Any) -> Value:
        if any(inside for *_, inside in padding_config):
            raise InputError("this network cannot be written as ONNX: it pads between values; export it without")
        x = self._repeat(x, [axis for axis, (low, high, _) in enumerate(padding_config) if (low, high) != (0, 0)])
        lows, highs = ([pair[end] for pair in padding_config] for end in (0, 1))
        if any(p < 0 for p in (*lows, *highs)):
            lengths = x.shape
            starts, limits = (
                [max(-low, 0) for low in lows],
                [n + min(h, 0) for n, h in zip(lengths, highs, strict=True)],
            )
            inside = tuple(limit - start for start, limit in zip(starts, limits, strict=True))
            x = self._slice(x, shape=inside, start_indices=starts, limit_indices=limits, strides=None)
        pads = np.array([max(p, 0) for p in (*lows, *highs)], np.int64)
        dims = tuple(n if (a, b) != (0, 0) else dim for n, a, b, dim in zip(shape, lows, highs, x.dims, strict=True))
        return Value(self.graph.add("Pad", x.data, pads, fill.data) if pads.any() else x.data, shape, dims)

    def _concatenate(self, *parts: Value, shape: Any, dimension: int, **_: Any) -> Value:
        whole = [self._repeat(part, range(len(shape))) for part in parts]
        return Value(self.graph.add("Concat", *(part.data for part in whole), axis=dimension), shape, shape)

    def _dot_general(self, left: Value, right: Value, *, shape: Any, dimension_numbers: Any, **_: Any) -> Value:
        summed, batched = (list(zip(*pairs, strict=True)) for pairs in dimension_numbers)
        left_axes = string.ascii_lowercase[: len(left.shape)]
        right_axes = list(string.ascii_uppercase[: len(right.shape)])
        for i, j in (*summed, *batched):
            right_axes[j] = left_axes[i]
        free = [x for x in (*left_axes, *right_axes) if (x in left_axes) != (x in right_axes)]
        out = "".join([*(left_axes[i] for i, _ in batched), *free])
        whole = [self._repeat(x, range(len(x.shape))).data for x in (left, right)]
        equation = f"{left_axes},{''.join(right_axes)}->{out}"
        return Value(self.graph.add("Einsum", *whole, equation=equation), shape, shape)

    def _reduce_window_max(self, x: Value, *, shape: Any, **params: Any) -> Value:
        _require(params["base_dilation"] == params["window_dilation"] == (1,) * 4, "a dilated pooling")
        axes = [1, 2]
        window, strides = ([params[name][axis] for axis in axes] for name in ("window_dimensions", "window_strides"))
        pads = [params["padding"][axis][end] for end in (0, 1) for axis in axes]
        image = self._put_channels_first(x)
        image = self.graph.add("MaxPool", image, kernel_shape=window, strides=strides, pads=pads)
        return Value(self._put_channels_last(image), shape, shape)

    def _conv_general_dilated(self, x: Value, kernel: Value, *, shape: Any, **params: Any) -> Value:
        spec = params["dimension_numbers"]
        form = (spec.lhs_spec, spec.rhs_spec, spec.out_spec, params["batch_group_count"])
        _require(form == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2), 1), "a convolution of another layout")
        _require(isinstance(kernel.data, np.ndarray), "a convolution by a kernel that is computed")
        array, groups = np.asarray(kernel.data), params["feature_group_count"]
        lows, highs = zip(*params["padding"], strict=True)
        image = self._put_channels_first(x)
        if math.prod(params["lhs_dilation"]) == 1:
            image = self.graph.add(
                "Conv", image, array.transpose(3, 2, 0, 1), group=groups, pads=[*lows, *highs],
                strides=list(params["window_strides"]), dilations=list(params["rhs_dilation"]),
            )  # fmt: skip
        else:
            _require(params["window_strides"] == params["rhs_dilation"] == (1, 1), "a convolution with two strides")
            # The same sum, seen from the input: a mirrored kernel, [in, out / groups, rows, columns].
            rows, columns, inputs, outputs = array.shape
            split = array[::-1, ::-1].reshape(rows, columns, inputs, groups, outputs // groups)
            array = split.transpose(3, 2, 4, 0, 1).reshape(groups * inputs, outputs // groups, rows, columns)
            pads = [side - 1 - pad for ends in (lows, highs) for side, pad in zip((rows, columns), ends, strict=True)]
            _require(min(pads) >= 0, "a transposed convolution that is padded")
            image = self.graph.add(
                "ConvTranspose", image, array, group=groups, pads=pads, strides=list(params["lhs_dilation"])
            )
        return Value(self._put_channels_last(image), shape, shape)

    def _put_channels_first(self, x: Value) -> str:
        return self.graph.add("Transpose", self._repeat(x, range(4)).data, perm=[0, 3, 1, 2])

    def _put_channels_last(self, image: str) -> str:
        return self.graph.add("Transpose", image, perm=[0, 2, 3, 1])

    def _repeat(self, x: Value, axes: Any) -> Value:
        """Repeat values along these axes, where the trace does."""
        repeated = [axis for axis in axes if x.dims[axis] is not x.shape[axis] and x.dims[axis] != x.shape[axis]]
        if not repeated:
            return x
        dims = tuple(x.shape[axis] if axis in repeated else dim for axis, dim in enumerate(x.dims))
        one = np.array([1], np.int64)
        lengths = [self._measure(dims[axis]) if axis in repeated else one for axis in range(len(dims))]
        return Value(self.graph.add("Expand", x.data, self.graph.add("Concat", *lengths, axis=0)), x.shape, dims)

    def _measure(self, length: Any) -> str | np.ndarray:
        """Return a side of a shape as int64[1], from integers and the symbols: factor * symbol + rest."""
        if isinstance(length, int):
            return np.array([length], np.int64)
        for symbol, tensor in self.symbols.items():
            for factor in range(1, 65):
                rest = length - factor * symbol
                if isinstance(rest, int):
                    product = self.graph.add("Mul", tensor, np.array([factor], np.int64))
                    return self.graph.add("Add", product, np.array([rest], np.int64)) if rest else product
        raise InputError(f"this network cannot be written as ONNX: it has a map of {length} cells; export it without")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise InputError(f"this network cannot be written as ONNX: it has {what}; export it without")


def make_model(
    graph: Graph,
    inputs: Mapping[str, tuple[int, Sequence[str | int]]],
    outputs: Mapping[str, tuple[int, Sequence[Any]]],
) -> onnx.ModelProto:
    """Make a checked ONNX model of a graph.

    Args:
        graph: the graph.
        inputs: element type of `onnx.TensorProto` and shape of each input, with names for free sides.
        outputs: the same of each output.
    """
    describe = [
        [helper.make_tensor_value_info(name, *value) for name, value in values.items()] for values in (inputs, outputs)
    ]
    arrays = [numpy_helper.from_array(array, name) for name, array in graph.arrays.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "fcn_jax", *describe, initializer=arrays),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="fcn_jax",
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model


UINT8, UINT16, FLOAT = TensorProto.UINT8, TensorProto.UINT16, TensorProto.FLOAT
