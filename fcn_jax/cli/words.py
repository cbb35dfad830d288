"""Functions for words and flags that several commands share."""

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from fcn_jax.errors import InputError, suggest_nearest
from fcn_jax.runtime.files import expand_home, find_cache_folder

Flags = TypeVar("Flags")


def parse_flags(kind: type[Flags], command: str, words: list[str]) -> Flags:
    """Read the words after a command; ~ at the start of a path is the user's folder."""
    import tyro  # a tenth of a second, which `fcn-jax --help` does without

    return _expand_paths(tyro.cli(kind, prog=f"fcn-jax {command}", args=words))


def _expand_paths(value: Any) -> Any:
    """Expand ~ in a path, and in all paths of a tuple or a dataclass."""
    if isinstance(value, Path):
        return expand_home(value)
    if isinstance(value, tuple):
        return tuple(map(_expand_paths, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _expand_paths(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def choose(what: str, word: str, known: Iterable[str]) -> str:
    """Return the word if it is known.

    Raises:
        InputError: the word is unknown; the text names the known words and the nearest one.
    """
    names = list(known)
    if word in names:
        return word
    raise InputError(f"{what} {word!r} is unknown, there are {', '.join(names)}{suggest_nearest(word, names)}")


def require_batch_size(batch_size: int | None) -> None:
    """Raise InputError unless the number of images computed at once is left open or at least 1."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch-size is {batch_size}; it must be at least 1")


def require_writable(*files: Path | None) -> None:
    """Check that files can be written. Call this before long work whose results go there.

    Raises:
        InputError: a file cannot be written.
    """
    for file in files:
        if file is None:
            continue
        try:
            if file.is_dir():
                raise IsADirectoryError("it is a folder")
            tempfile.TemporaryFile(dir=file.parent).close()
        except OSError as error:
            raise InputError(
                f"{file} cannot be written ({error.strerror or error}); give a file in a folder that exists"
            ) from error


def start_jax(cache: Path | None) -> None:
    """Start JAX's backends, and keep compiled programs in the cache; None: in the default one.

    A compiled program is run as it is found. So the cache is one that the user names, never one that a file names, such
    as the config.json of a run.

    Raises:
        InputError: JAX cannot use the platform that it is asked for.
    """
    from fcn_jax.runtime.compile_cache import keep_compiled
    from fcn_jax.runtime.compiler_memory import give_back_memory
    from fcn_jax.runtime.devices import require_devices
    from fcn_jax.runtime.progress import show_step

    with show_step("starting JAX"):
        require_devices()
    keep_compiled(find_cache_folder(cache))
    give_back_memory()
