"""Show the progress of long work to the user."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

EVERY = 10  # seconds between progress lines where there is no terminal to draw a bar on


@contextlib.contextmanager
def show_progress(what: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show progress on the error stream: a bar on a terminal, otherwise a line every ten seconds.

    Args:
        what: what is being done, such as "decoding".
        total: the whole amount of work, None if unknown.
        unit: "B" for bytes, otherwise the plural of what is counted.
        done: the amount that was done before.

    Yields:
        A function that takes the amount of work done since its last call.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=what, unit=unit, unit_scale=unit == "B") as bar:
            yield bar.update
        return

    scale, name = (1e6, "MB") if unit == "B" else (1, unit)
    of_total = "" if total is None else f" of {total / scale:.0f}"

    def print_line() -> None:
        print(f"{what}: {done / scale:.0f}{of_total} {name}", file=sys.stderr, flush=True)

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            print_line()

    last = time.monotonic()
    print_line()
    yield advance
    print_line()
