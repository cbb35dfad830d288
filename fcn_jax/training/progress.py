"""What a person sees of a training: a bar on a terminal, plain lines elsewhere, and an overview of the parameters."""

import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
from tqdm import tqdm

from fcn_jax.config import Config

T = TypeVar("T")


class Progress:
    """Shows step, loss, images/s and time left."""

    def __init__(self, config: Config, first_step: int):
        self._config, self._first = config, first_step
        self._began = time.perf_counter()
        self._bar = None
        if sys.stdout.isatty():
            self._bar = tqdm(total=config.steps, initial=first_step, unit="step", file=sys.stdout, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def show(self, step: int, loss: float, input_wait: float) -> None:
        """Tells how far it is, and the share of time spent waiting for input; the first steps include compilation."""
        seconds = time.perf_counter() - self._began
        rate = (step - self._first) / seconds
        images = rate * self._config.batch_size
        waiting = f"input {input_wait:.1%}"
        if self._bar:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(f"loss {loss:.4f}, {images:.1f} images/s, {waiting}")
        else:
            left = duration((self._config.steps - step) / rate)
            print(
                f"step {step}/{self._config.steps}  loss {loss:.4f}  {images:.1f} images/s  {waiting}  {left} left",
                flush=True,
            )

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


class InputWait:
    """The share of time in which the devices had nothing to do because the next batch was not there.

    A wait counts only if the step before had ended when the batch came, and then as a whole, though the step may have
    ended in the middle of it: so it is the share at most.
    """

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Forgets what was: what is not training, such as an evaluation, is not to count."""
        self._waited, self._began = 0.0, None

    def take(self, batches: Iterator[T], before: Any) -> T:
        """The next of `batches`; `before` are arrays that the step before computes, None if there is none."""
        asked = time.perf_counter()
        if self._began is None:
            self._began = asked
        batch = next(batches)
        if all(array.is_ready() for array in jax.tree.leaves(before)):
            self._waited += time.perf_counter() - asked
        return batch

    def share(self) -> float:
        """The share since the last `restart`, and a restart; 0 if nothing was taken since."""
        total = 0.0 if self._began is None else time.perf_counter() - self._began
        waited = self._waited
        self.restart()
        return waited / total if total else 0.0


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def overview(params: Any) -> str:
    """A table of the network's top modules and the backbone's parts: arrays, numbers in them, kernel shapes."""
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
