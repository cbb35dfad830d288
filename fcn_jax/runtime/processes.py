"""The processes of a training on one or several hosts: how they find each other, agree, and end together.

JAX's distributed runtime does the work. The coordinator, in process 0, keeps texts by name; they are used here instead
of collectives of devices, because these give up after half a minute.
"""

import contextlib
import itertools
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from fcn_jax.errors import InputError, ProcessLost
from fcn_jax.runtime.cluster import Cluster
from fcn_jax.runtime.progress import hide_progress

MEETING = 300  # seconds in which all processes have to start
HEARTBEAT = 60  # seconds after which a process that does not answer counts as lost
LEAVING = 600  # seconds in which a process that ends waits for the others, which may be saving
READING = 30.0  # seconds in which all processes read what was given to them
PATIENCE = 2 * 3600.0  # seconds to wait for the slowest process, which may prepare data
_LOST = ("Gloo", "NCCL", "UNAVAILABLE", "coordination service", "heartbeat", "Connection closed", "Connection reset")

_numbers = itertools.count()  # the same in all processes, since all call the same functions in the same order


def join_processes(cluster: Cluster) -> None:
    """Find the other processes of the training, if there are any. Call this before anything starts JAX.

    Without flags JAX finds them under Slurm, Open MPI, on TPU pods and in Kubernetes. A process that is alone on its
    host takes all devices there, and of several each takes one. A program that has called `jax.distributed.initialize`
    itself stays as it is.

    Raises:
        InputError: the others were not found in time, or the values do not fit.
    """
    given = any(value is not None for value in vars(cluster).values())
    if jax.distributed.is_initialized() or (not given and _is_alone()):
        return
    count, number = _read_place(cluster)
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            count,
            number,
            local_device_ids=_choose_devices(),
            initialization_timeout=MEETING,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=LEAVING,
        )
    except ValueError as error:
        if given or "OMPI_COMM_WORLD_SIZE" in os.environ:
            raise InputError(
                f"the place among the processes is not known ({error}); give --coordinator HOST:PORT, --num-processes "
                "and --process-id"
            ) from error
        # JAX has found no cluster: this process is the only one.
    except RuntimeError as error:
        if not given and "must be called before" in str(error):
            return  # a program that uses JAX already and trains by itself
        raise InputError(
            f"{socket.gethostname()} could not join the other processes ({str(error).splitlines()[0]}); all of them "
            f"must start within {MEETING} s, and reach process 0 at the address and port of --coordinator"
        ) from error


def gather(text: str, patience: float = PATIENCE) -> list[str]:
    """Return the text of every process, in their order. All processes have to call this.

    Raises:
        InputError: a process has not called it within `patience` seconds.
    """
    if jax.process_count() == 1:
        return [text]
    name = _post(text)
    texts = [_read(name, index, patience) for index in range(jax.process_count())]
    _let_all_read(name)
    return texts


@contextlib.contextmanager
def fail_together(patience: float = PATIENCE) -> Iterator[None]:
    """Let every process do the block, and raise the error of one in all.

    Raises:
        InputError: the block raised an error in another process, or another process has not ended it within `patience`
            seconds.
    """
    if jax.process_count() == 1:
        yield
        return
    try:
        yield
    except Exception as error:
        print(f"fcn-jax: {error}; telling the other processes", file=sys.stderr, flush=True)
        _let_all_read(_post(f"{socket.gethostname()}: {error}"), patience)
        raise
    failures = [f"process {index} has failed on {text}" for index, text in enumerate(gather("", patience)) if text]
    if failures:
        raise InputError("\n".join(failures))


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Explain the errors that JAX raises in the block when another process has ended.

    Raises:
        ProcessLost: another process has ended, or cannot be reached.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or not any(word in str(error) for word in _LOST):
            raise
        raise ProcessLost(
            f"process {jax.process_index()} on {socket.gethostname()}: another process has ended or cannot be reached; "
            "see its output. The same command on all hosts goes on from the last checkpoint "
            f"({str(error).splitlines()[0][:200]})"
        ) from error


def was_stopped() -> bool:
    """Return whether SIGTERM has come to one of several processes since their start. All have to call this."""
    if jax.process_count() == 1:
        return False
    try:
        _client().key_value_try_get("RECEIVED_PREEMPTION_NOTICE")  # where JAX keeps the first one
    except jax.errors.JaxRuntimeError:
        return "True" in gather("False")
    return "True" in gather("True")


def silence_all_but_first() -> None:
    """Drop progress, and what is printed on the standard output, of all processes but the first; not their errors."""
    if jax.process_index() != 0:
        hide_progress(True)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _is_alone() -> bool:
    """Return whether a launcher has started this process only. Without a launcher it is not known."""
    # Open MPI may have started its own helpers by Slurm, so that its processes see the values of both.
    return os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS")) == "1"


def _read_place(cluster: Cluster) -> tuple[int | None, int | None]:
    """Return the number of processes and that of this one, from the flags or from Open MPI, where they are known."""
    # JAX reads the place of Open MPI itself, but only up to version 4.
    size, rank = os.environ.get("OMPI_COMM_WORLD_SIZE"), os.environ.get("OMPI_COMM_WORLD_RANK")
    count = int(size) if cluster.num_processes is None and size else cluster.num_processes
    return count, int(rank) if cluster.process_id is None and rank else cluster.process_id


def _choose_devices() -> list[int] | None:
    """Return [] to take all devices that are visible, the number of one, or None for JAX's choice, which is one."""
    per_host = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    # The launcher may show each process its own device only, as Slurm does with --gpus-per-task.
    shows_one = re.fullmatch(r"[^,]+", os.environ.get("CUDA_VISIBLE_DEVICES", "")) is not None
    if shows_one or re.fullmatch(r"1(\(x\d+\))?", per_host):
        return []
    rank = os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK")  # which JAX does not ask for in Open MPI 5
    return None if rank is None else [int(rank)]


def _post(text: str) -> str:
    """Give the other processes a text, and return the name that all know it by."""
    name = f"fcn_jax/{next(_numbers)}"
    _client().key_value_set(f"{name}/{jax.process_index()}", f"={text}")  # an empty text cannot be read
    return name


def _read(name: str, index: int, patience: float) -> str:
    began = time.monotonic()
    while True:
        try:
            text = _client().blocking_key_value_get(f"{name}/{index}", round(1000 * min(60, patience)))
            return text.removeprefix("=")
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        waited = time.monotonic() - began
        if waited >= patience:
            raise InputError(
                f"process {index} has not come as far as the others within {waited / 60:.0f} minutes; see its output"
            )
        print(f"waiting for process {index} for {waited / 60:.0f} minutes", file=sys.stderr, flush=True)


def _let_all_read(name: str, patience: float = READING) -> None:
    """Wait until all processes have read the texts of a name, since the texts are gone when process 0 ends."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().wait_at_barrier(f"{name}/read", round(1000 * patience))


def _client() -> Any:
    # JAX has no public way to its store of texts. Orbax takes the same one.
    from jax._src import distributed

    return distributed.global_state.client
