"""Show the progress of long work to the user: always on the error stream, so that the output holds results alone."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

EVERY = 10  # seconds between progress lines where there is no terminal to draw a bar on

_hidden: ContextVar[bool] = ContextVar("_hidden", default=False)


def hide_progress(hide: bool) -> None:
    """Show no progress from here to the end of the context (`contextvars`) if `hide` is true.

    It is what `--quiet` means in every command. Results, warnings and errors are still printed.
    """
    _hidden.set(hide)


def is_hidden() -> bool:
    """Return whether progress is hidden."""
    return _hidden.get()


@contextlib.contextmanager
def show_step(what: str) -> Iterator[None]:
    """Say on the error stream what is being done now, where nothing can be counted, such as "compiling".

    A terminal shows it until it is done, elsewhere it is a line.
    """
    if is_hidden():
        yield
    elif sys.stderr.isatty():
        with tqdm(desc=what, bar_format="{desc} ...", leave=False, file=sys.stderr):
            yield
    else:
        print(what, file=sys.stderr, flush=True)
        yield


@contextlib.contextmanager
def show_progress(
    what: str, total: int | None, unit: str, done: int = 0, brief: bool = False
) -> Iterator[Callable[[int], object]]:
    """Show progress on the error stream: a bar on a terminal, otherwise a line every ten seconds, each with the rate.

    A bar below another one goes away when it is full.

    Args:
        what: what is being done, such as "decoding".
        total: the whole amount of work, None if unknown.
        unit: "B" for bytes, otherwise the plural of what is counted.
        done: the amount that was done before.
        brief: whether to leave out the lines at the start and at the end, for work that is done many times.

    Yields:
        A function that takes the amount of work done since its last call.
    """
    if is_hidden():
        yield lambda more: None
        return
    if sys.stderr.isatty():
        scaled = unit == "B"
        with tqdm(
            total=total, initial=done, desc=what, unit=unit if scaled else f" {unit}", unit_scale=scaled,
            dynamic_ncols=True, leave=None, file=sys.stderr,
        ) as bar:  # fmt: skip
            yield bar.update
        return

    scale, name = (1e6, "MB") if unit == "B" else (1, unit)
    of_total = "" if total is None else f" of {total / scale:.0f}"
    before, began = done, time.monotonic()

    def print_line() -> None:
        seconds = time.monotonic() - began
        # A shorter time is mostly that of the start.
        shown = ""
        if seconds >= 1 and done > before:
            rate = (done - before) / scale / seconds
            shown = f", {f'{rate:.1f}' if rate >= 1 else f'{rate:.2g}'} {name}/s"
        print(f"{what}: {done / scale:.0f}{of_total} {name}{shown}", file=sys.stderr, flush=True)

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            print_line()

    last = began
    if not brief:
        print_line()
    yield advance
    if not brief:
        print_line()


def track(items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
    """Yield items, and show the progress of what is done with them (`show_progress`)."""
    with show_progress(what, total, unit) as advance:
        for item in items:
            yield item
            advance(1)
