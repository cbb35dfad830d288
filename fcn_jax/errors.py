"""Errors whose text is written for the user, and printed without a stack trace."""

import difflib
import re
from collections.abc import Iterable

# An address in the text of a decoder's error, such as that of <_io.BytesIO object at 0x7f0c2a9e4d10>.
_ADDRESS = re.compile(r"(?: object)? at 0x[0-9a-fA-F]+(?=>)")


class InputError(Exception):
    """An error in the user's input. The text gives the value, the rule and the remedy.

    It is not a ValueError, because libraries that call our functions catch those and change their text.
    """

    def __init__(self, text: str):
        """Make an error of a text, and leave out the addresses of objects that it names."""
        super().__init__(_ADDRESS.sub("", text))


class OutOfMemory(Exception):  # noqa: N818
    """A lack of memory on the host or a device. The text says where, how much was needed, and what to change."""


class WriteFailed(Exception):  # noqa: N818
    """A file that could not be written, on a full disk for example. The text says which, why, and what to do."""


class Diverged(Exception):  # noqa: N818
    """A training whose loss or gradient is no longer finite. The text says where this began, and what to change."""


class ProcessLost(Exception):  # noqa: N818
    """Another process of the training has ended or cannot be reached. The text says what to do."""


class ExportDiffers(Exception):  # noqa: N818
    """An exported file that computes something else than the network it was made from. The text says by how much."""


class Stopped(Exception):  # noqa: N818
    """A training that a signal has stopped. The text says after which step; the same command goes on from there."""


def require(condition: bool, message: str) -> None:
    """Raise InputError with a message unless a condition holds."""
    if not condition:
        raise InputError(message)


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'fcn8s'?" for the known name nearest to a word, or nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
