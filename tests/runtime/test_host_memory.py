"""Free memory of this machine."""

import math
from pathlib import Path

import pytest

from fcn_jax.runtime.host_memory import read_free_memory


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_free_memory_is_a_part_of_all_memory():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < read_free_memory() <= int(total.split()[1]) * 1024


@pytest.mark.parametrize("lines", [None, "MemTotal: 5 kB", "MemFree: 4 kB\nMemAvailable:   7 kB\nCached: 3 kB"])
def test_systems_that_tell_less(tmp_path, lines):
    if lines:
        write(tmp_path / "proc/meminfo", lines)
    assert read_free_memory(tmp_path) == (7168 if lines and "Available" in lines else math.inf)


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file {}\ntotal_active_file {}\nunevictable 9\n")
V2 = ("memory.max", "memory.current", "anon 70\ninactive_file {}\nactive_file {}\n")


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "sys/fs/cgroup/job", V2),  # the limit is that of the whole job
        ("0::/", "sys/fs/cgroup", V2),  # in a container
        ("9:name=systemd:/\n4:memory:/job", "sys/fs/cgroup/memory/job", V1),
        ("4:memory:/name/on/the/host", "sys/fs/cgroup/memory", V1),  # in a container
    ],
)
def test_the_limit_of_a_container_or_job_counts(tmp_path, line, folder, names):
    limit, used, stat = names
    write(tmp_path / "proc/meminfo", "MemAvailable: 100 kB")
    write(tmp_path / "proc/self/cgroup", line + "\n")
    write(tmp_path / folder / limit, "5000\n")
    write(tmp_path / folder / used, "4000\n")
    write(tmp_path / folder / "memory.stat", stat.format(600, 50))
    assert read_free_memory(tmp_path) == 1650
    write(tmp_path / folder / used, "9000\n")
    assert read_free_memory(tmp_path) == 0
    write(tmp_path / folder / limit, "max\n")
    assert read_free_memory(tmp_path) == 102_400
