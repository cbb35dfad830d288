"""Count the arithmetic of a program as it is written, so that the count is the same for every device.

XLA's own count of a program lowered for a GPU is not to be had, and the one of a compiled program leaves out whatever
cuDNN computes.
"""

import math
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(program: Jaxpr) -> int:
    """Count the floating-point operations of convolutions and matrix products, of which a network's others are few.

    A product and its sum are two operations. Products with padding and with the zeros between dilated inputs are not
    counted. A scan counts as often as it runs, a conditional as its dearest branch, and a `while` loop as one pass.

    Args:
        program: as in `jax.jit(f).trace(*args).jaxpr.jaxpr`.
    """
    return sum(map(_count_equation, program.eqns))


def _count_equation(equation: JaxprEqn) -> int:
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs, _, out = _read_shapes(equation)
            return 2 * math.prod(out) * math.prod(lhs[axis] for axis in contracted)
        case "conv_general_dilated":
            return _count_convolution(equation)
        case "scan":
            return equation.params["length"] * count_flops(equation.params["jaxpr"].jaxpr)
        case "cond":
            return max(count_flops(branch.jaxpr) for branch in equation.params["branches"])
        case _:
            return sum(map(count_flops, _find_programs(tuple(equation.params.values()))))


def _count_convolution(equation: JaxprEqn) -> int:
    lhs, rhs, out = _read_shapes(equation)
    params = equation.params
    axes = params["dimension_numbers"]
    taps = 1  # pairs of an output and a kernel position, of one channel, that meet an input
    for axis in range(len(params["padding"])):
        size, kernel, outputs = (
            shape[spec[2 + axis]] for shape, spec in ((lhs, axes.lhs_spec), (rhs, axes.rhs_spec), (out, axes.out_spec))
        )
        holes = params["lhs_dilation"][axis]
        starts = params["window_strides"][axis] * np.arange(outputs)[:, None] - params["padding"][axis][0]
        places = starts + params["rhs_dilation"][axis] * np.arange(kernel)
        taps *= int(np.sum((places >= 0) & (places <= (size - 1) * holes) & (places % holes == 0)))
    batch, channels = (out[axes.out_spec[axis]] for axis in (0, 1))
    return 2 * taps * batch * channels * rhs[axes.rhs_spec[1]]


def _read_shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    """Read the shapes of both inputs and of the output."""
    values: list[Any] = [*equation.invars, *equation.outvars]
    return [value.aval.shape for value in values]


def _find_programs(value: object) -> list[Jaxpr]:
    """Find the programs among the parameters of an equation."""
    if isinstance(value, tuple | list):
        return [found for item in value for found in _find_programs(item)]
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    return [value] if isinstance(value, Jaxpr) else []
