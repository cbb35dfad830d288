"""The time of a call, and the memory of the process that measures it."""

import resource
import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Measure the median seconds of calls that wait for their results, after two that warm up."""
    found = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def resident() -> int:
    """Return the largest resident set of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
