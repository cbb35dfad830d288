"""A network as StableHLO, in the format of `jax.export`."""

from collections.abc import Callable
from typing import Any

import jax
from jax import export

from fcn_jax.config import InputConfig
from fcn_jax.layers import plain_methods

PLATFORMS = ("cpu", "cuda", "tpu")


def make_stablehlo(program: Callable[[Any], Any], given: InputConfig = InputConfig()) -> bytes:  # noqa: B008
    """Trace a program for images of any number and size, for CPU, GPU and TPU.

    Args:
        program: from `program.make_program`.
        given: the input of its network.

    Returns:
        The content of the file: `jax.export.deserialize(content).call(image)` runs it.
    """
    batch, height, width = export.symbolic_shape("batch, height, width")
    image = jax.ShapeDtypeStruct((batch, height, width, given.num_channels), given.dtype)
    with plain_methods():
        exported = export.export(jax.jit(program), platforms=PLATFORMS)(image)
    return bytes(exported.serialize())
