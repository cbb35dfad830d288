"""What a process measures of itself: the time of a call and its own memory."""

import resource
import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median time of calls that wait for their result, after two that warm up."""
    found = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def resident() -> int:
    """Return the largest resident set of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
