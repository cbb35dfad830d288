"""Read how much memory is free on this machine, and in the container or the job that this process is in."""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def read_free_memory(root: Path = ROOT) -> float:
    """Read how many bytes this process can still use without swapping; infinity if the system does not tell.

    Args:
        root: folder of the system's files.
    """
    return min(_read_free_of_machine(root), *_read_free_of_groups(root))


def _read_free_of_machine(root: Path) -> float:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    available = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * available[0] if available else math.inf


def _read_free_of_groups(root: Path) -> Iterator[float]:
    """Yield what is left of the limit of each control group of this process, as of a container or of a Slurm job.

    The files that the kernel keeps in memory count as used there, but it gives them up when memory is needed.
    """
    yield math.inf
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for kinds, path in (line.split(":", 2)[1:] for line in lines):
        if not kinds:  # version 2
            mounted, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file", "active_file")
        elif kinds == "memory":
            mounted = "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
        else:
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):  # in a container the path may be that of the host, and its own the root
            yield _read_free_of_group(root / mounted / folder, *names)


def _read_free_of_group(folder: Path, limit: str, used: str, *kept: str) -> float:
    try:
        numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        reclaimable = sum(int(numbers[name]) for name in kept)
        return max(float(int((folder / limit).read_text()) - int((folder / used).read_text()) + reclaimable), 0.0)
    except (OSError, ValueError, KeyError):  # ValueError: no limit is "max"
        return math.inf
