"""Output of a training for the user: a progress bar on a terminal, plain lines elsewhere, and tables."""

import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from tqdm import tqdm

from fcn_jax.config import Config
from fcn_jax.inference.evaluate import Evaluation
from fcn_jax.runtime.progress import is_hidden
from fcn_jax.training.optim import make_schedule

T = TypeVar("T")


class Progress:
    """Display of step, loss, images/s and time left. Use it in a `with` statement."""

    def __init__(self, config: Config, first_step: int):
        """Start the bar if there is a terminal.

        Args:
            config: configuration with every value set (`fill_config`).
            first_step: number of steps that the run has taken before.
        """
        assert config.batch_size is not None
        self._steps, self._batch_size = config.ends[-1], config.batch_size
        self.restart(first_step)
        self._bar = None
        if sys.stdout.isatty() and not is_hidden():
            self._bar = tqdm(total=self._steps, initial=first_step, unit="step", file=sys.stdout, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def restart(self, step: int) -> None:
        """Measure images/s from now on, after so many steps, so that what came before does not count."""
        self._since, self._began = step, time.perf_counter()

    def show(self, step: int, loss: float, input_wait: float) -> None:
        """Show the loss, and the share of time spent waiting for input (`InputWait`).

        The images/s and the time left are those of the steps since the last line. The first step counts in neither,
        because most of it is compilation.
        """
        steps, seconds = step - self._since, time.perf_counter() - self._began
        self.restart(step)
        facts = [f"loss {loss:.4f}"]
        if steps:
            facts.append(f"{steps * self._batch_size / seconds:.1f} images/s")
        facts.append(f"input {input_wait:.1%}")
        if self._bar:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(", ".join(facts))
            return
        if is_hidden():
            return
        if steps:
            facts.append(f"{format_duration((self._steps - step) * seconds / steps)} left")
        print("  ".join([f"step {step}/{self._steps}", *facts]), flush=True)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


class InputWait:
    """Measurement of the share of time in which the devices were idle because the next batch was not ready.

    A wait counts if the step before it had ended when the batch was ready. The whole wait counts, even if the step
    ended in the middle of it, so the result is an upper bound.
    """

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Restart the measurement, so that an evaluation, for example, does not count."""
        self._waited, self._began = 0.0, None

    def take(self, batches: Iterator[T], before: Any) -> T:
        """Return the next of `batches`; `before` holds the results of the step before, or None."""
        asked = time.perf_counter()
        if self._began is None:
            self._began = asked
        batch = next(batches)
        if all(array.is_ready() for array in jax.tree.leaves(before)):
            self._waited += time.perf_counter() - asked
        return batch

    def share(self) -> float:
        """Return the share since the last restart, 0 if nothing was taken since, and restart."""
        total = 0.0 if self._began is None else time.perf_counter() - self._began
        waited = self._waited
        self.restart()
        return waited / total if total else 0.0


def format_duration(seconds: float) -> str:
    """Format a time as hours, minutes and seconds, h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def format_evaluation(evaluation: Evaluation) -> str:
    """Format an evaluation as one line."""
    seconds = evaluation.seconds
    scores = "".join(
        f"{f'{task.name}: '.lstrip(': ')}mean IU {metrics.mean_iu:.4f}, pixel accuracy {metrics.pixel_accuracy:.4f}, "
        for task, metrics, _ in evaluation.tasks
    )
    return (
        f"{scores}loss {evaluation.loss:.4f} "
        f"({evaluation.num_examples} images in {seconds:.1f} s, {evaluation.num_examples / seconds:.1f} images/s, "
        f"{evaluation.programs} canvas size{'s' * (evaluation.programs != 1)})"
    )


def format_extensions(config: Config) -> list[str]:
    """Format a line for each extension of a run: where it begins, and what it does to the learning rate.

    Args:
        config: configuration with every value set (`fill_config`).
    """
    rate = make_schedule(config)
    lines: list[str] = []
    for start, end in pairwise(config.ends):
        before, after = (f"{float(jnp.asarray(rate(step))):.3g}" for step in (max(start - 1, 0), start))
        change = f"changes from {before} to {after}" if before != after else f"stays {after}"
        schedule = config.optim.schedule
        how = f"{schedule} is stretched over all {end} steps" if schedule == "poly" else f"the schedule is {schedule}"
        lines.append(f"extended from {start} to {end} steps: {how}, so the learning rate {change} after step {start}")
    return lines


def format_parameters(params: Any) -> str:
    """Format a table of the network's top modules and the backbone's parts: arrays, numbers, largest kernel."""
    groups: dict[str, list[jax.Array]] = {}
    for path, array in jax.tree_util.tree_leaves_with_path(params):
        names = [str(key.key) for key in path]
        depth = 2 if names[0] == "backbone" else 1
        groups.setdefault("/".join(names[:depth]), []).append(array)
    width = max(map(len, groups))
    lines = [f"{'parameters':{width}}  {'arrays':>6}  {'numbers':>11}  largest kernel"]
    for name, arrays in groups.items():
        largest = max(arrays, key=lambda array: array.size)
        shape = " × ".join(map(str, largest.shape))
        lines.append(f"{name:{width}}  {len(arrays):>6}  {sum(a.size for a in arrays):>11,}  {shape}")
    total = sum(array.size for array in jax.tree.leaves(params))
    lines.append(f"{'all':{width}}  {sum(map(len, groups.values())):>6}  {total:>11,}")
    return "\n".join(lines)
