"""A trace of some training steps, to see where their time goes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

WARM_UP = 3  # steps before the trace: the first compiles, and the input's threads then fill their buffers


@contextlib.contextmanager
def trace_steps(
    step_fn: Callable[..., Any], steps: int, folder: Path, say: Callable[[str], None]
) -> Iterator[Callable[..., Any]]:
    """Yields a function that does what `step_fn` does, and writes a trace of its calls after `WARM_UP`.

    The trace has all that happens meanwhile, evaluations and checkpoints too. It does not change what is computed.

    Args:
        step_fn: one training step.
        steps: calls to trace; 0: none, and `step_fn` itself is yielded.
        folder: where the trace goes.
        say: takes a line on where it is, and how to open it.
    """
    if not steps:
        yield step_fn
        return
    calls, running = 0, False

    def stop() -> None:
        nonlocal running
        jax.profiler.stop_trace()
        running = False
        seen = f"{min(calls - WARM_UP, steps)} steps"
        say(
            f"trace of {seen}: {folder}\n"
            f"  to look at it: pip install xprof, then xprof --logdir {folder}; or the file *.trace.json.gz below it "
            "at https://ui.perfetto.dev"
        )

    def call(*arguments: Any) -> Any:
        nonlocal calls, running
        calls += 1
        if calls == WARM_UP + 1:
            jax.block_until_ready(arguments)  # the trace begins with this step, not with the end of the one before
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
        if running:  # the run has ended before
            stop()
        elif calls <= WARM_UP:
            say(f"no trace: the run had {calls} steps left, and a trace begins after {WARM_UP}")
