"""The place of a process among those of a training, as flags give it. This module does not import JAX."""

import re
from dataclasses import dataclass

from fcn_jax.errors import InputError


@dataclass(frozen=True)
class Cluster:
    """The place of this process among those of a training. JAX finds it under Slurm, Open MPI, on TPU pods and others.

    With values for one of them it is found nowhere else.
    """

    coordinator: str | None = None
    """HOST:PORT at which process 0 is reached by the others; None: found by JAX, or there is one process only"""
    num_processes: int | None = None
    """number of processes, at least 1; None: found by JAX"""
    process_id: int | None = None
    """number of this process, from 0 on; None: found by JAX"""

    def __post_init__(self) -> None:
        coordinator, count, number = self.coordinator, self.num_processes, self.process_id
        if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
            raise InputError(f"coordinator is {coordinator}; it must be HOST:PORT, such as node1:12355")
        if count is not None and count < 1:
            raise InputError(f"num-processes is {count}; it must be at least 1")
        if number is not None and (number < 0 or (count is not None and number >= count)):
            raise InputError(
                f"process-id is {number} of {count} processes; it must be at least 0 and below num-processes"
            )
