"""The disk of a run is taken away: a clear error, and the last checkpoint is intact when it is back."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import both_end_well, end_all, start
from small_trainings import read, steps, words, write_data

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: every later access ends in an error, as on a disk that is gone
LONG = ("--steps", 400, "--checkpoint-every", 5, "--eval-every", 100)


def mount(image: Path, folder: Path) -> None:
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a file system needs root and loop devices: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Path]]:
    """A real file system of its own: the file that holds it, and the folder where it is mounted."""
    image, folder = tmp_path / "disk.ext4", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount(image, folder)
    yield image, folder
    subprocess.run(["umount", folder], check=True)


def take_away(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, SHUTDOWN, (2).to_bytes(4, "little"))  # without writing what is in memory
    finally:
        os.close(handle)


@pytest.mark.slow
def test_a_run_whose_disk_is_lost_ends_with_a_clear_error_and_goes_on_when_it_is_back(tmp_path, disk):
    image, folder = disk
    data = write_data(tmp_path / "data")
    both_end_well([start(words(data, tmp_path / "whole", *LONG))], 300)
    run = folder / "run"
    process = start(words(data, run, *LONG))
    while len(steps(run) if (run / "checkpoints").exists() else []) < 4:
        assert process.poll() is None
    take_away(folder)
    ((status, output),) = end_all([process], 120)
    assert status == 1
    assert "Traceback" not in output
    assert "Input/output error" in output.splitlines()[-1]
    assert "goes on after" in output.splitlines()[-1]
    subprocess.run(["umount", folder], check=True)
    mount(image, folder)
    assert steps(run)
    both_end_well([start(words(data, run, *LONG))], 300)
    assert read(run) == read(tmp_path / "whole")


@pytest.fixture
def network_disk(tmp_path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A FUSE mount, as sshfs and many clusters have: the process that serves it, and the folder where it is mounted."""
    bindfs = shutil.which("bindfs")
    if not bindfs or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("this needs bindfs (Debian's package of that name) and /dev/fuse")
    served, folder = tmp_path / "served", tmp_path / "network"
    served.mkdir()
    folder.mkdir()
    process = subprocess.Popen([bindfs, "-f", served, folder])
    while not os.path.ismount(folder):
        assert process.poll() is None
    yield process, folder
    process.kill()
    process.wait()
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_run_whose_network_disk_is_lost_ends_with_a_clear_error(tmp_path, network_disk):
    server, folder = network_disk
    data, run = write_data(tmp_path / "data"), folder / "run"
    process = start(words(data, run, *LONG))
    while len(steps(run) if (run / "checkpoints").exists() else []) < 4:
        assert process.poll() is None
    server.kill()
    server.wait()
    ((status, output),) = end_all([process], 120)
    assert status == 1
    assert "Traceback" not in output
    assert "endpoint is not connected" in output.splitlines()[-1]

    ((status, output),) = end_all([start(words(data, run, *LONG))], 120)
    assert status == 1
    assert "Traceback" not in output
    assert "endpoint is not connected" in output.splitlines()[-1]

    saved = tmp_path / "served" / "run"
    assert steps(saved)
    both_end_well([start(words(data, tmp_path / "whole", *LONG)), start(words(data, saved, *LONG))], 300)
    assert read(saved) == read(tmp_path / "whole")
