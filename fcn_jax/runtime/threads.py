"""Map a function over items in threads, so that files are read and written while the device computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fcn_jax.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Iterator[Result]:
    """Yield what `map(function, items)` yields, in the same order, with the calls running in threads.

    The caller's own thread draws the items, and only when it asks for results, so memory stays bounded. Errors of
    `function` and `items` are raised here. After an error, and when the caller stops asking (`close`, Ctrl-C), calls
    that have begun are completed and the others are dropped, so that no file is left half-written.

    Args:
        function: called from several threads at once.
        items: drawn one at a time.
        threads: number of threads, at least 1.
        ahead: greatest number of items that are drawn and not yet returned; None: two for each thread.

    Raises:
        InputError: there is no thread.
    """
    if threads < 1:
        raise InputError(f"the number of threads or workers is {threads}; it must be at least 1")
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
