"""Measurements in processes of their own, so that they do not share memory, caches and threads.

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
        name: name of one of the functions that the script gives to `answer`.
        environment: all environment variables of the process; None: those of this one.
        arguments: arguments of the function, which JSON can express.

    Returns:
        The result of the function, after a round trip through JSON.
    """
    return last_line([sys.executable, script, OPTION, name, json.dumps(arguments)], environment)


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
