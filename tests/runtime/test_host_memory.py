"""Free memory of this machine."""

import math
from pathlib import Path

import pytest

from fcn_jax.runtime.host_memory import read_free_memory


def test_free_memory_is_a_part_of_all_memory():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < read_free_memory() <= int(total.split()[1]) * 1024


@pytest.mark.parametrize("lines", [None, "MemTotal: 5 kB", "MemFree: 4 kB\nMemAvailable:   7 kB\nCached: 3 kB"])
def test_systems_that_tell_less(monkeypatch, lines):
    def read_text(self):
        if lines is None:
            raise FileNotFoundError(self)
        return lines

    monkeypatch.setattr(Path, "read_text", read_text)
    assert read_free_memory() == (7168 if lines and "Available" in lines else math.inf)
