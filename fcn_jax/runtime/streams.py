"""Keep a command running when its output cannot be written."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# As a shell reports a program that SIGPIPE ended, which is how most programs end when their reader has gone.
READER_GONE = 141


class SafeStream:
    """A text stream that remembers its first failure instead of raising it, and drops what is written after it.

    Attributes:
        failure: the first error; None: everything was written.
    """

    def __init__(self, stream: Any):
        """Wrap a stream. Characters that it cannot encode are written as backslash escapes."""
        self._stream = stream
        self.failure: Exception | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        if self.failure is not None:
            return
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.failure = error
            # Python writes the rest of the buffer when it exits, which would fail again.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)


@contextlib.contextmanager
def protect_output() -> Iterator[None]:
    """Let the block go on when the standard streams cannot be written: closed, full, gone.

    Raises:
        SystemExit: the block ended without an error, and output was lost. The status is 141 if the reader of the
            standard output has gone, otherwise 1.
    """
    _open_missing()
    before = sys.stdout, sys.stderr
    output, errors = SafeStream(sys.stdout), SafeStream(sys.stderr)
    sys.stdout, sys.stderr = output, errors  # pyright: ignore[reportAttributeAccessIssue]
    ended = None
    try:
        yield
    except SystemExit as end:  # as after --help
        if end.code:
            raise
        ended = end
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
    if isinstance(output.failure, BrokenPipeError):
        sys.exit(READER_GONE)
    if output.failure is not None:
        sys.exit(f"fcn-jax: the output could not be written ({output.failure})")
    if errors.failure is not None:
        sys.exit(1)
    if ended is not None:
        raise ended


def is_reader_gone() -> bool:
    """Return whether the reader of the standard output has gone, such as `head` after its last line."""
    return isinstance(sys.stdout, SafeStream) and isinstance(sys.stdout.failure, BrokenPipeError)


def _open_missing() -> None:
    """Open standard streams that the process was started without, so that no other file takes their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
