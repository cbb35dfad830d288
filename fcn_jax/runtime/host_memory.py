"""Read how much memory is free on this machine."""

import math
from pathlib import Path


def read_free_memory() -> float:
    """Read how many bytes programs can still use without swapping; infinity if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    available = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * available[0] if available else math.inf
