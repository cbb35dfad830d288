"""How a process finds its place among others; the tests with real processes are in tests/training/test_processes.py."""

import socket

import jax
import pytest

from fcn_jax.errors import InputError, ProcessLost
from fcn_jax.runtime import processes
from fcn_jax.runtime.cluster import Cluster
from fcn_jax.runtime.processes import explain_lost_process, fail_together, gather, join_processes

# What launchers tell a process. The second step of a Slurm job with eight tasks has two of them, on two nodes.
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
VARIABLES = {*SLURM, *OPEN_MPI, "CUDA_VISIBLE_DEVICES", "JAX_COORDINATOR_ADDRESS"}


@pytest.fixture
def asked(monkeypatch):
    """What JAX is asked for: a list of the arguments of each call."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    calls: list[dict] = []

    def initialize(coordinator, count, number, **options):
        calls.append({"place": (coordinator, count, number), **options})

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    return calls


def give(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_flags_say_the_place(asked):
    join_processes(Cluster("node1:1234", 4, 2))
    assert asked[0]["place"] == ("node1:1234", 4, 2)
    assert asked[0]["local_device_ids"] is None


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        (SLURM, []),  # alone on its node: all devices
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1"}, []),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x4)"}, None),  # one device each, which JAX chooses
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1,2"}, None),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2", "CUDA_VISIBLE_DEVICES": "3"}, []),  # as with --gpus-per-task=1
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, None),
        (OPEN_MPI, [1]),
        (SLURM | OPEN_MPI, [1]),  # Open MPI has started its helpers by Slurm, one on each node
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
    ],
)
def test_a_process_alone_on_its_host_takes_all_devices(asked, monkeypatch, variables, devices):
    give(monkeypatch, variables)
    join_processes(Cluster())
    assert [call["local_device_ids"] for call in asked] == [devices]


@pytest.mark.parametrize("variables", [SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_the_only_process_of_a_launcher_joins_nobody(asked, monkeypatch, variables):
    """Slurm names eight tasks in a shell of `salloc -n 8`, too, where one process is started by hand."""
    give(monkeypatch, variables)
    join_processes(Cluster())
    assert asked == []


def test_open_mpi_says_number_and_place_also_where_jax_does_not_ask_it(asked, monkeypatch):
    give(monkeypatch, OPEN_MPI)
    join_processes(Cluster("node1:1234"))
    assert asked[0]["place"] == ("node1:1234", 4, 3)


def nothing_found(*_, **__):
    raise ValueError("coordinator_address should be defined.")


def test_without_a_cluster_there_is_one_process(asked, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    join_processes(Cluster())


@pytest.mark.parametrize(
    ("cluster", "variables"), [(Cluster(num_processes=2, process_id=0), {}), (Cluster(), OPEN_MPI)]
)
def test_a_place_that_is_known_in_part_is_refused(asked, monkeypatch, cluster, variables):
    give(monkeypatch, variables)
    monkeypatch.setattr(jax.distributed, "initialize", nothing_found)
    with pytest.raises(InputError, match=r"coordinator_address should be defined.* --coordinator HOST:PORT, --num-pro"):
        join_processes(cluster)


def test_processes_that_do_not_meet(asked, monkeypatch):
    def initialize(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match=rf"^{socket.gethostname()} could not join .*timed out\.\); .* within 300 s"):
        join_processes(Cluster("node1:1234", 2, 1))


def test_one_process_agrees_with_itself():
    assert gather("text") == ["text"]
    with pytest.raises(KeyError, match="own"), fail_together():
        raise KeyError("own")


class Coordinator:
    """The texts that processes give each other; that of another process comes after some questions, or never."""

    def __init__(self, late: float):
        self.late, self.texts = late, {}

    def key_value_set(self, name, text):
        self.texts[name] = text

    def blocking_key_value_get(self, name, milliseconds):
        if name not in self.texts and self.late > 0:
            self.late -= 1
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: GetKeyValue() timed out")
        return self.texts.get(name, "=theirs")

    def wait_at_barrier(self, name, milliseconds):
        pass


def test_a_process_that_is_late_is_waited_for(monkeypatch, capsys):
    coordinator = Coordinator(late=2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_client", lambda: coordinator)
    assert gather("ours") == ["ours", "theirs"]
    assert capsys.readouterr().err == 2 * "waiting for process 1 for 0 minutes\n"


def test_a_process_that_does_not_come_is_named(monkeypatch):
    coordinator = Coordinator(late=float("inf"))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_client", lambda: coordinator)
    with pytest.raises(
        InputError, match="process 1 has not come as far as the others within 0 minutes; see its output"
    ):
        gather("ours", patience=0.0)


def test_errors_of_a_lost_process_are_explained(monkeypatch):
    lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer\nmore")
    other = jax.errors.JaxRuntimeError("INTERNAL: of another kind")
    with pytest.raises(jax.errors.JaxRuntimeError, match="Gloo"), explain_lost_process():
        raise lost  # there is no other process
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    message = r"another process has ended .* last checkpoint \(.*reset by peer\)$"
    with pytest.raises(ProcessLost, match=message), explain_lost_process():
        raise lost
    with pytest.raises(jax.errors.JaxRuntimeError, match="of another kind"), explain_lost_process():
        raise other


def test_a_program_that_uses_jax_already_is_left_alone(asked, monkeypatch):
    join_processes(Cluster())  # JAX itself refuses here, where its backends are started
    monkeypatch.undo()
    assert jax.process_count() == 1
    join_processes(Cluster())
    with pytest.raises(InputError, match=r"could not join the other processes \(.*must be called before"):
        join_processes(Cluster("127.0.0.1:1", 2, 1))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    join_processes(Cluster("127.0.0.1:1", 2, 1))
