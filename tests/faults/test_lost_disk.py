"""The disk of a run is taken away: a clear error, and the last checkpoint is intact when it is back."""

import contextlib
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


@contextlib.contextmanager
def serve(served: Path, folder: Path) -> Iterator[subprocess.Popen]:
    """Mount a folder by FUSE, as sshfs does and many clusters; the value is the process that serves it."""
    bindfs = shutil.which("bindfs")
    if not bindfs or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("this needs bindfs (Debian's package of that name) and /dev/fuse")
    served.mkdir(exist_ok=True)
    folder.mkdir()
    process = subprocess.Popen([bindfs, "-f", served, folder])
    while not os.path.ismount(folder):
        assert process.poll() is None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def network_disk(tmp_path) -> Iterator[tuple[subprocess.Popen, Path]]:
    with serve(tmp_path / "served", tmp_path / "network") as process:
        yield process, tmp_path / "network"


@pytest.mark.slow
def test_of_two_hosts_whose_locks_do_not_meet_one_ends(tmp_path):
    """Each mount has locks of its own, as the hosts of a disk that does not pass locks on."""
    data = write_data(tmp_path / "data")
    both_end_well([start(words(data, tmp_path / "whole", *LONG))], 300)
    with serve(tmp_path / "served", tmp_path / "a"), serve(tmp_path / "served", tmp_path / "b"):
        first = start(words(data, tmp_path / "a/run", *LONG))
        while len(steps(tmp_path / "a/run") if (tmp_path / "a/run/checkpoints").exists() else []) < 4:
            assert first.poll() is None
        second = start(words(data, tmp_path / "b/run", *LONG))
        ended = [end_all([process], 300)[0] for process in (first, second)]
        # The second one may have found, before it noted its start, that the first one took steps meanwhile.
        refusals = ("another training has started in", "another process has trained this run meanwhile")
        (refused,) = [index for index, (status, _) in enumerate(ended) if status != 0]
        assert refusals[refused] in ended[refused][1].splitlines()[-1]
    last, whole = (read(run)[-1] for run in (tmp_path / "served/run", tmp_path / "whole"))
    assert last == whole


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
