"""What programs need, read off them once they are compiled: for `--dry-run`, and where memory runs out."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from fcn_jax.errors import OutOfMemory

# What to lower, by what ran out of memory. Batch and crop change the result, so they start another run.
IN_TRAINING = (
    "lower --batch-size or --augment.crop, compute a batch in more parts by --accumulate, or give --model.dtype "
    "bfloat16. The last checkpoint is whole; a run with other flags is another run, so give another --run-dir, and "
    "--model.init-from to start it from what this one has learned"
)
IN_EVALUATION = (
    "lower --eval-batch-size (in `eval` and `predict` --batch-size); where it is 1 for each device already, "
    "give --model.dtype bfloat16 in training, or smaller images"
)


class Memory(NamedTuple):
    """Bytes that a program needs on each device.

    Attributes:
        arguments: what it is given: parameters, momentum, a batch.
        output: what it returns, without what takes the place of an argument.
        temporaries: what it has only while it runs: feature maps, gradients.
    """

    arguments: int
    output: int
    temporaries: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {format_bytes(count)}" for name, count in zip(self._fields, self, strict=True))
        return f"{format_bytes(sum(self))} a device ({parts})"


def read_memory(program: jax.stages.Compiled) -> Memory:
    """Reads off what a compiled program needs."""
    stats: Any = program.memory_analysis()
    output = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(stats.argument_size_in_bytes, output, stats.temp_size_in_bytes)


def shapes_of(arguments: Any) -> Any:
    """The same tree of shapes, with shardings where there are devices to it."""

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding if isinstance(x, jax.Array) else None)

    return jax.tree.map(shape, arguments)


@contextlib.contextmanager
def explain_out_of_memory(function: Callable[..., Any], what: str, remedy: str) -> Iterator[Callable[..., Any]]:
    """Yields a jitted function, and answers with its needs and a remedy where memory runs out in the block.

    Args:
        function: it is called with something that always has the same shapes, and a batch.
        what: it does with a batch: "a training step".
        remedy: what to lower.

    Raises:
        OutOfMemory: with the memory of the program that was called last.
    """
    last: tuple[Any, ...] = ()
    batch_shapes = None

    def call(*arguments: Any) -> Any:
        nonlocal last, batch_shapes
        shapes = [x.shape for x in jax.tree.leaves(arguments[1:])]
        if shapes != batch_shapes:  # seldom: it takes a millisecond
            last, batch_shapes = shapes_of(arguments), shapes
        return function(*arguments)

    try:
        yield call
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "the host has none left"
        raise OutOfMemory(f"out of memory in {what} ({reason}){_needs(function, last)}; {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or XLA in its words, says that memory has run out."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def format_bytes(count: int | float) -> str:
    """Bytes as GB or MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _needs(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    if not arguments:
        return ""
    height, width = arguments[1].label.shape[1:]
    canvas = f" on {math.prod(arguments[1].label.shape[:1])} images on a canvas of {width}x{height}"
    with contextlib.suppress(MemoryError, jax.errors.JaxRuntimeError):  # not even the memory to compile
        program = function.lower(*arguments).compile()  # pyright: ignore[reportFunctionMemberAccess]
        return f":{canvas} it needs {read_memory(program)}"
    return f":{canvas}"
