"""The flags for the place of a process: what is refused, and where each range ends."""

import subprocess
import sys

import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime.cluster import Cluster


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coordinator": "node1"}, r"^coordinator is node1; it must be HOST:PORT"),
        ({"coordinator": ":1"}, r"^coordinator is :1; it must be HOST:PORT"),
        ({"coordinator": "node1:12a"}, r"^coordinator is node1:12a; it must be HOST:PORT"),
        ({"num_processes": 0}, r"^num-processes is 0.* at least 1"),
        ({"num_processes": 2, "process_id": 2}, r"^process-id is 2 of 2 processes.* below num-processes"),
        ({"process_id": -1}, r"^process-id is -1 of None processes.* at least 0"),
    ],
)
def test_a_value_outside_its_range_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Cluster(**values)


def test_the_last_values_of_the_ranges():
    assert Cluster() == Cluster(None, None, None)
    assert Cluster("[::1]:12355", 1, 0).process_id == 0
    assert Cluster(num_processes=2, process_id=1).num_processes == 2
    assert Cluster(process_id=99).process_id == 99


def test_the_flags_are_read_without_jax():
    code = "import fcn_jax.runtime.cluster, sys; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
