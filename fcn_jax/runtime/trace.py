"""A profiler trace of some training steps."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

WARM_UP = 3  # steps before the trace: the first one compiles, and the input's threads then fill their buffers


@contextlib.contextmanager
def trace_steps(
    step_fn: Callable[..., Any], steps: int, folder: Path, say: Callable[[str], None]
) -> Iterator[Callable[..., Any]]:
    """Write a trace of the calls of a function after the first `WARM_UP` ones.

    The trace also shows what else happens meanwhile, such as evaluations and checkpoints. Results stay the same.

    Args:
        step_fn: one training step.
        steps: number of calls to trace; 0: none.
        folder: folder to write the trace to.
        say: function that shows a line to the user: where the trace is and how to open it.

    Yields:
        A function that does what `step_fn` does.
    """
    if not steps:
        yield step_fn
        return
    calls, running = 0, False

    def stop() -> None:
        nonlocal running
        jax.profiler.stop_trace()
        running = False
        say(
            f"trace of {min(calls - WARM_UP, steps)} steps: {folder}\n"
            f"  to look at it: pip install xprof, then xprof --logdir {folder}; or open the file *.trace.json.gz in it "
            "at https://ui.perfetto.dev"
        )

    def call(*arguments: Any) -> Any:
        nonlocal calls, running
        calls += 1
        if calls == WARM_UP + 1:
            jax.block_until_ready(arguments)  # so that the trace does not begin with the end of the step before
            jax.profiler.start_trace(folder)
            running = True
        if not running:
            return step_fn(*arguments)
        with jax.profiler.StepTraceAnnotation("train", step_num=calls):
            result = step_fn(*arguments)
        if calls == WARM_UP + steps:
            jax.block_until_ready(result)
            stop()
        return result

    try:
        yield call
    finally:
        if running:  # the run has ended before the trace
            stop()
        elif calls <= WARM_UP:
            say(f"no trace: the run has ended after {calls} steps of this start, and a trace begins after {WARM_UP}")
