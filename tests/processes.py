"""Processes that talk to each other, for tests of many hosts."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from xla_flags import FAST_COMPILE

# The command line with a network that compiles in a second.
COMMAND = """
import sys
from fcn_jax import cli
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN8s
from fcn_jax.training import setup

backbone = ResNet(depths=(1, 1, 1, 1), width=8)
setup.build = lambda model, classes: FCN8s(num_classes=classes, backbone=backbone)
cli.main(sys.argv[1:])
"""


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(words: Sequence[str], devices: int = 1, package: Path | None = None, **variables: str) -> subprocess.Popen:
    """Starts the command line in a process with some virtual devices; `package` has another fcn_jax."""
    flags = f"--xla_force_host_platform_device_count={devices} {FAST_COMPILE}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **variables}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=package,
    )


def start_all(count: int, words: Sequence[str], devices: int = 1) -> list[subprocess.Popen]:
    """Starts processes that meet at an address of this machine."""
    address = free_address()
    places = [["--coordinator", address, "--num-processes", str(count), "--process-id", str(i)] for i in range(count)]
    return [start([*words, *place], devices) for place in places]


def end_all(processes: list[subprocess.Popen], timeout: float) -> list[tuple[int, str]]:
    """Waits for processes that need each other, and returns status and output of each; none is left behind."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
        return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def both_end_well(processes: list[subprocess.Popen], timeout: float) -> None:
    """Waits for processes that need each other; none is left behind."""
    for status, output in end_all(processes, timeout):
        assert status == 0, output
