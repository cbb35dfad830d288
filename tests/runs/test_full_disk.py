"""Checkpoints on a real file system without room."""

import re
import subprocess
import sys

import numpy as np
import pytest

from fcn_jax.errors import WriteFailed
from fcn_jax.runs.checkpoint import Checkpoints


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a file system needs root: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_checkpoint_for_which_the_disk_has_no_room_is_not_begun(small_disk):
    values = {"variables": {"x": np.random.default_rng(0).normal(size=70_000).astype(np.float32)}}
    with Checkpoints(small_disk) as checkpoints:
        checkpoints.save(1, values)
        checkpoints.wait()
        for _ in range(50):
            checkpoints.look_after()
        (small_disk / "filler").write_bytes(bytes(500_000))
        with pytest.raises(WriteFailed) as failed:
            checkpoints.save(2, values)
        (small_disk / "filler").unlink()
        checkpoints.save(3, values)
    assert re.fullmatch(
        rf"the checkpoint of step 2 could not be written to {small_disk} \(no room for 0\.3 MB; "
        r"0\.\d MB of 1\.0 MB are free\); make room, then the same command goes on after step 1, the last complete one",
        str(failed.value),
    )
    assert sorted(path.name for path in small_disk.iterdir()) == ["1", "3"]


SAVE_TOO_MUCH = """
import sys, time
from pathlib import Path
import numpy as np
from fcn_jax.errors import WriteFailed
from fcn_jax.runs.checkpoint import Checkpoints
Checkpoints._require_room = lambda *_: None  # as if the room were taken by another process in the same moment
folder, generator = Path(sys.argv[1]), np.random.default_rng(0)
try:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, {"variables": {"x": np.ones(3)}})
        checkpoints.save(2, {"variables": {"x": generator.normal(size=1_000_000)}})
        for _ in range(1000):
            time.sleep(0.01)
            checkpoints.look_after()
except WriteFailed as error:
    print(error)
print("left", sorted(path.name for path in folder.iterdir()))
"""


def test_a_save_that_fails_in_the_background_is_reported_and_removed(small_disk):
    """A process of its own: libraries below print stack traces of their threads, which is not ours to change."""
    done = subprocess.run(
        [sys.executable, "-c", SAVE_TOO_MUCH, small_disk], capture_output=True, text=True, check=False
    )
    message, left = done.stdout.splitlines()
    assert message.startswith(
        f"the checkpoint of step 2 could not be written to {small_disk} (No space left on device;"
    )
    assert message.endswith("goes on after step 1, the last complete one")
    assert left == "left ['1']"
