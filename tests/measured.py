"""A command, and what it needed: memory and time of the processors."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

# Linux counts the memory of the process that starts a command as the command's own until the command is loaded. So a
# small process starts it, and not that of the tests, which may have gigabytes.
_MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Measured(NamedTuple):
    """What a command printed on both streams, its peak of memory in bytes, and its seconds of processors."""

    output: str
    peak: int
    seconds: float


def run_measured(words: Sequence[object], **options: Any) -> Measured:
    """Run a command, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    *lines, last = done.stdout.splitlines(keepends=True)
    kilobytes, seconds = last.split()
    return Measured("".join(lines), 1024 * int(kilobytes), float(seconds))
