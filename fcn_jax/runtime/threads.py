"""A map whose function runs in threads: files are read and written while the device computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Iterator[Result]:
    """`map(function, items)`, in order, with calls of `function` running while the caller is busy with other things.

    Items are drawn by the caller's own thread, and only as results are asked for, so that memory stays bounded. What
    `function` or `items` raises comes out here. Then, and when the caller stops asking (`close`, Ctrl-C), what has not
    begun is dropped and what has begun is finished first, so that no file is left half-written.

    Args:
        function: called from several threads at once.
        items: drawn one at a time.
        threads: how many.
        ahead: items drawn and not yet given back, at most; None: two a thread.
    """
    ahead = 2 * threads if ahead is None else ahead
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead or pending[0].done():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
