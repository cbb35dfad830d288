"""The memory and the CPU time of processes."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

SAMPLES, APART = 5, 0.004  # looks at a process, and seconds between them, in all of which it has to be idle
LONGEST = 20.0  # seconds in which it has to become so


def resident() -> int:
    """Return the largest resident set of this process so far, bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_seconds(process: int) -> float:
    """Return the CPU time of the living threads of a process and of its children so far, s."""
    return sum(int(text.split()[0]) for text in _read_threads(process, "schedstat")) / 1e9


def is_computing(process: int) -> bool:
    """Return whether a thread of a process, or of its children, runs or waits for a core or for the disk.

    A thread that spins is one of them, even if other programs keep it from running.
    """
    return any(text.rpartition(")")[2].split()[0] in "RD" for text in _read_threads(process, "stat"))


def wait_until_idle(process: int) -> None:
    """Wait until no thread of a process and of its children computes.

    Raises:
        SystemExit: the process goes on computing.
    """
    if not Path(f"/proc/{process}/task").exists():  # not Linux: threads of libraries spin shorter than this
        time.sleep(0.3)
        return
    until = time.monotonic() + LONGEST
    idle = 0
    while idle < SAMPLES:
        if time.monotonic() > until:
            raise SystemExit(f"process {process} still computes {LONGEST:g} s after its turn; no other can be measured")
        time.sleep(APART)
        idle = 0 if is_computing(process) else idle + 1


def _read_threads(process: int, name: str) -> Iterator[str]:
    """Read a file of each thread of a process and of its children."""
    for thread in Path(f"/proc/{process}/task").glob("*"):
        try:
            yield (thread / name).read_text()
            children = (thread / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        for child in children:
            yield from _read_threads(int(child), name)
