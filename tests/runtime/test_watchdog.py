"""A process that is stuck is ended, and tells where each thread is."""

import subprocess
import sys
import time

import pytest

from fcn_jax.runtime.watchdog import watch

STUCK = """
import threading
from fcn_jax.runtime.watchdog import watch

def read_an_image():
    threading.Event().wait()

with watch(0.4) as watched:
    step = watched("training step", lambda: None)
    step()
    threading.Thread(target=read_an_image, daemon=True).start()
    read_an_image()
"""


def test_a_stuck_process_ends_with_75_and_the_stacks_of_all_threads():
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 75
    assert ended.stderr.startswith("fcn-jax: nothing has moved for 0.4 s after the last training step; a device")
    assert ended.stderr.count("in read_an_image") == 2
    assert "most recent call first" in ended.stderr


def test_a_stuck_process_ends_whatever_its_standard_error_is():
    """It may be an object of Python, without the file that a traceback is written to."""
    redirected = "import contextlib, io\nwith contextlib.redirect_stderr(io.StringIO()):\n    "
    script = redirected + STUCK.strip().replace("\n", "\n    ")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 75


@pytest.mark.parametrize("limit", [0.4, 0.0])
def test_calls_keep_a_process_alive_and_0_is_no_limit(limit):
    """If they did not, this process would end."""
    with watch(limit) as watched:
        add = watched("sum", lambda a, b: a + b)
        for _ in range(6):
            time.sleep(0.1)
            assert add(1, 2) == 3
    time.sleep(0.5)
