"""Read how much memory compiled programs need, and explain errors when it runs out."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from fcn_jax.errors import OutOfMemory

# What to change when memory runs out. Another batch size or crop gives other results, so it needs another run.
IN_TRAINING = (
    "lower --batch-size or --augment.crop, compute a batch in more parts with --accumulate, or give --model.dtype "
    "bfloat16. The last checkpoint is complete. A run with other flags needs another --run-dir; give --model.init-from "
    "to start it from this one"
)
IN_EVALUATION = (
    "lower --eval-batch-size (--batch-size of `eval` and `predict`), or --tile of these two for large images; "
    "otherwise train with --model.dtype bfloat16, or give smaller images"
)


class Memory(NamedTuple):
    """Bytes that a program needs on each device.

    Attributes:
        arguments: parameters, momentum and a batch.
        output: results, without those that take the place of an argument.
        temporaries: arrays that exist only while the program runs, such as feature maps and gradients.
    """

    arguments: int
    output: int
    temporaries: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {format_bytes(count)}" for name, count in zip(self._fields, self, strict=True))
        return f"{format_bytes(sum(self))} a device ({parts})"


def read_memory(program: jax.stages.Compiled) -> Memory:
    """Read from a compiled program how much memory it needs."""
    stats: Any = program.memory_analysis()
    output = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(stats.argument_size_in_bytes, output, stats.temp_size_in_bytes)


def format_bytes(count: int | float) -> str:
    """Format a number of bytes as GB or MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or XLA has run out of memory. XLA shows it only in the text of its error."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


@contextlib.contextmanager
def explain_out_of_memory(function: Callable[..., Any], what: str, remedy: str) -> Iterator[Callable[..., Any]]:
    """Replace out-of-memory errors in the block by one that says what was needed, and what to change.

    Args:
        function: a jitted function, or one that wraps it (`functools.wraps`). Its first argument always has the same
            shapes, its second one is a batch.
        what: what the function does with a batch, such as "a training step".
        remedy: what to change.

    Yields:
        A function that does the same and remembers the shapes of its last call.

    Raises:
        OutOfMemory: memory ran out in the block.
    """
    last: tuple[Any, ...] = ()
    batch_shapes = None

    def call(*arguments: Any) -> Any:
        nonlocal last, batch_shapes
        shapes = [x.shape for x in jax.tree.leaves(arguments[1:])]
        if shapes != batch_shapes:  # rare; describing all arguments takes a millisecond
            last, batch_shapes = _describe_arrays(arguments), shapes
        return function(*arguments)

    try:
        yield call
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "the host has none left"
        raise OutOfMemory(f"out of memory in {what} ({reason}){_describe_needs(function, last)}; {remedy}") from error


def _describe_arrays(arguments: Any) -> Any:
    """Describe arrays by their shapes, types, and shardings if they are on devices."""

    def describe(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding if isinstance(x, jax.Array) else None)

    return jax.tree.map(describe, arguments)


def _describe_needs(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Describe the last batch and the memory that the function needs for it."""
    if not arguments:
        return ""
    count, height, width, *_ = arguments[1].label.shape
    canvas = f" on {count} images on a canvas of {width}x{height}"
    jitted: Any = inspect.unwrap(function, stop=lambda wrapped: hasattr(wrapped, "lower"))
    with contextlib.suppress(MemoryError, jax.errors.JaxRuntimeError):  # there may be too little even to compile
        program = jitted.lower(*arguments).compile()
        return f":{canvas} it needs {read_memory(program)}"
    return f":{canvas}"
