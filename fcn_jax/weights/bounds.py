"""A bound on what a file of weights unfolds to, so that a small file cannot fill the memory."""

from pathlib import Path

from fcn_jax.errors import InputError


def require_bounded(count: int, what: str, file: Path) -> None:
    """Check that a file does not claim to hold more than it has bytes.

    Weights are stored as they are: a number takes a byte or more. Formats also allow views that repeat a number,
    compression, and arrays that are stored by their shape alone. A kilobyte could then become terabytes.

    Args:
        count: how many numbers or bytes the file claims to hold.
        what: what they are, for the message: "numbers".
        file: the file.

    Raises:
        InputError: `count` is above the size of the file in bytes.
    """
    size = file.stat().st_size
    if count > size:
        raise InputError(
            f"{file} has {size} bytes and claims to hold {count} {what}; weights are stored without compression and "
            "without views that repeat numbers, so it is damaged or hostile: get it from its source, or save it again"
        )
