"""Measurements in processes of their own, so that they do not share memory, caches and threads.

A benchmark begins with `if answer(FUNCTIONS): return` and calls its own functions by `measure(__file__, NAME, ...)`.
Where compiling takes longer than measuring, as on a GPU, `measure_in_turns` lets several of them get ready at once.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

OPTION = "--measure"
TURNS = "MEASURE_IN_TURNS"  # environment variable of a process that waits for its turn
READY, GO = "ready to measure\n", "go\n"


def measure(script: str, name: str, environment: dict[str, str] | None = None, /, **arguments: Any) -> Any:
    """Call a function of a script in a new process.

    Args:
        script: file of the benchmark.
        name: name of one of the functions that the script gives to `answer`.
        environment: all environment variables of the process; None: those of this one.
        arguments: arguments of the function, which JSON can express.

    Returns:
        The result of the function, after a round trip through JSON.
    """
    return last_line(_command(script, name, arguments), environment)


def measure_in_turns(script: str, calls: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
    """Call functions of a script in new processes that get ready together and measure one after the other.

    Each function calls `wait_for_turn` when everything is compiled, and measures after that. No process measures
    before all are ready, and those that wait or are done compute nothing. They share the memory of a GPU, so JAX takes
    none of it in advance.

    Args:
        script: file of the benchmark.
        calls: names of functions that the script gives to `answer`, with their arguments.

    Yields:
        The results in the order of the calls, each as soon as it is there, after a round trip through JSON.

    Raises:
        SystemExit: a process failed. The text has its standard error. The others are ended.
    """
    environment = os.environ | {TURNS: "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with ExitStack() as stack:
        processes = []
        for name, arguments in calls:
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            command = _command(script, name, arguments)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            process = subprocess.Popen(command, text=True, env=environment, **pipes)
            stack.callback(_end, process)
            processes.append((process, errors))
        early = [_read_until(process.stdout, READY) for process, _ in processes]
        for (process, errors), lines in zip(processes, early, strict=True):
            if lines[-1:] == [READY]:
                process.stdin.write(GO)
                process.stdin.flush()
            lines += process.stdout.readlines()
            if process.wait():
                errors.seek(0)
                raise SystemExit(f"{errors.read()}\n{' '.join(process.args)} ended with {process.returncode}")
            yield json.loads(lines[-1])


@functools.cache
def wait_for_turn() -> None:
    """Wait until the other processes of `measure_in_turns` are ready and done; in another process return at once."""
    if TURNS in os.environ:
        sys.stdout.write(READY)
        sys.stdout.flush()
        sys.stdin.readline()


def _command(script: str, name: str, arguments: dict[str, Any]) -> list[str]:
    return [sys.executable, script, OPTION, name, json.dumps(arguments)]


def _read_until(lines: Iterable[str], last: str) -> list[str]:
    found = []
    for line in lines:
        found.append(line)
        if line == last:
            break
    return found


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def last_line(command: Sequence[str], environment: dict[str, str] | None = None) -> Any:
    """Run a command and parse the last line of its output as JSON.

    Raises:
        SystemExit: the command failed. The text has its standard error.
    """
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{process.stderr}\n{' '.join(command)} ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def answer(functions: Iterable[Callable[..., Any]]) -> bool:
    """Call the function that is asked for and print its result, if `measure` started this process.

    Returns:
        Whether `measure` started this process, so that nothing is left to do.
    """
    if sys.argv[1:2] != [OPTION]:
        return False
    name, arguments = sys.argv[2:]
    called = {function.__name__: function for function in functions}[name]
    print(json.dumps(called(**json.loads(arguments))))
    return True
