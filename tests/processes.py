"""Processes that talk to each other, for tests of many hosts."""

import socket
import subprocess


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def both_end_well(processes: list[subprocess.Popen], timeout: float) -> None:
    """Waits for processes that need each other; none is left behind."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=timeout)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
