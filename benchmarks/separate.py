"""Measurements in a process of their own, so that memory, caches and threads of one are no part of another's.

A benchmark begins with `if answer(FUNCTIONS): return` and calls its own functions by `measure(__file__, NAME, ...)`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

OPTION = "--measure"


def measure(script: str, name: str, environment: dict[str, str] | None = None, /, **arguments: Any) -> Any:
    """Call a function of a script in a new process.

    Args:
        script: file of the benchmark.
        name: of one of the functions that it gives to `answer`.
        environment: all variables of the process; None: those of this one.
        arguments: of the function, as JSON has them.

    Returns:
        What the function returns, as JSON has it.
    """
    return last_line([sys.executable, script, OPTION, name, json.dumps(arguments)], environment)


def last_line(command: Sequence[str], environment: dict[str, str] | None = None) -> Any:
    """Run a command and return what the JSON in the last line of its output stands for.

    Raises:
        SystemExit: the command failed; with what it wrote to its standard error.
    """
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{process.stderr}\n{' '.join(command)} ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def answer(functions: Iterable[Callable[..., Any]]) -> bool:
    """Where `measure` started this process, call the function asked for and print its result.

    Returns:
        Whether it did, and nothing is left to do.
    """
    if sys.argv[1:2] != [OPTION]:
        return False
    name, arguments = sys.argv[2:]
    called = {function.__name__: function for function in functions}[name]
    print(json.dumps(called(**json.loads(arguments))))
    return True
