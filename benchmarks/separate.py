"""Functions of a benchmark in processes of their own, so that they do not share memory, caches and threads.

A benchmark begins with `if answer(FUNCTIONS): return`. `measure(__file__, NAME, ...)` calls one of the functions in a
new process. `start(__file__, NAME, ...)` starts a `Worker`: a process that stays alive, in which the function prepares
what is to be called, and which then calls it whenever its turn has come (turns.py).
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from meters import wait_until_idle

MEASURE, WORK = "--measure", "--work"
READY = "ready"


def measure(script: str, name: str, environment: dict[str, str] | None = None, /, **arguments: Any) -> Any:
    """Call a function of a script in a new process.

    Args:
        script: file of the benchmark.
        name: name of one of the functions that the script gives to `answer`.
        environment: all environment variables of the process; None: those of this one.
        arguments: arguments of the function, which JSON can express.

    Returns:
        The result of the function, after a round trip through JSON.

    Raises:
        SystemExit: the process failed. The text has its standard error.
    """
    command = _command(script, MEASURE, name, arguments)
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise SystemExit(f"{process.stderr}\n{' '.join(command)} ended with {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


class Worker:
    """A process that has prepared functions and calls them when asked; while it waits it computes nothing.

    The process prints `READY` when everything is prepared. Then it reads lines, each the JSON of the name of a function
    and a number of calls, and prints a line of JSON for each: the function's result if the number is 0, and otherwise
    the mean seconds of so many calls. It ends with its input. `answer` does all this; a program of another environment
    may do it by itself.

    A worker is a context manager, whose end ends the process.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None):
        """Start the process; it prepares while others do, until the first question waits for it.

        Args:
            command: the program and its arguments.
            environment: all environment variables of the process; None: those of this one.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by __exit__
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self._is_ready = False

    def wait_until_ready(self) -> "Worker":
        """Wait until everything is prepared, and return the worker."""
        while not self._is_ready:
            self._is_ready = self._read_line() == READY
        return self

    def ask(self, name: str) -> Any:
        """Call a function; return its result, after a round trip through JSON, when the process is idle again.

        Raises:
            SystemExit: the process failed, or it goes on computing.
        """
        return self._request(name, 0)

    def measure(self, name: str, calls: int = 1) -> float:
        """Measure the mean seconds of calls of a function; return when the process is idle again.

        Raises:
            SystemExit: the process failed, or it goes on computing.
        """
        return self._request(name, calls)

    def _request(self, name: str, calls: int) -> Any:
        self.wait_until_ready()
        try:
            self.process.stdin.write(json.dumps([name, calls]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; reading its answer says why
        found = json.loads(self._read_line())
        # The threads of a library may spin for a while before they sleep, and would slow down whoever is next.
        wait_until_idle(self.process.pid)
        return found

    def _read_line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self._errors.read()}\n{' '.join(self.process.args)} ended with {status}")
        return line.rstrip("\n")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # of a question to a process that has ended
                stream.close()


def start(script: str, name: str, environment: dict[str, str] | None = None, /, **arguments: Any) -> Worker:
    """Start a worker for a function of a script, which returns functions by name. Arguments are those of `measure`."""
    # Workers share the memory of a GPU, so JAX takes none of it in advance.
    environment = (environment or dict(os.environ)) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return Worker(_command(script, WORK, name, arguments), environment)


def answer(functions: Iterable[Callable[..., Any]]) -> bool:
    """Do what is asked of this process, if `measure` or `start` started it.

    Returns:
        Whether one of them started it, so that nothing is left to do.
    """
    if sys.argv[1:2] not in ([MEASURE], [WORK]):
        return False
    name, arguments = sys.argv[2:]
    called = {function.__name__: function for function in functions}[name]
    if sys.argv[1] == MEASURE:
        print(json.dumps(called(**json.loads(arguments))))
    else:
        _serve(lambda: called(**json.loads(arguments)))
    return True


def _serve(prepare: Callable[[], dict[str, Callable[[], Any]]]) -> None:
    """Answer the questions of a `Worker`; what the functions print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        functions = prepare()
        print(READY, file=answers, flush=True)
        for line in sys.stdin:
            name, calls = json.loads(line)
            found = mean_seconds(functions[name], calls) if calls else functions[name]()
            print(json.dumps(found), file=answers, flush=True)
    os._exit(0)  # without the ends of libraries' threads, which may take long


def forget_compiled() -> dict[str, str]:
    """Return the environment variables without JAX's own for compiled programs.

    With them a first start could find its programs compiled, or the next start could find none.
    """
    own = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    return {name: value for name, value in os.environ.items() if name not in own}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other worker of this machine is in such a block, and keep the others out of theirs.

    A compiler for GPUs, and cuDNN, time their candidates; several that do so at once would choose slow ones.
    """
    with Path(tempfile.gettempdir(), f"fcn_jax-benchmark-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mean_seconds(function: Callable[[], object], calls: int) -> float:
    """Measure the mean seconds of calls. Before several calls, one that is not timed fills the caches."""
    if calls > 1:
        function()
    began = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - began) / calls


def _command(script: str, option: str, name: str, arguments: dict[str, Any]) -> list[str]:
    return [sys.executable, script, option, name, json.dumps(arguments)]
