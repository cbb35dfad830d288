"""What several commands do with the words and flags they are given."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_jax.errors import InputError

if TYPE_CHECKING:
    from fcn_jax.runs.run_dir import Run


def choose(what: str, word: str, known: Iterable[str]) -> str:
    """Return the word if it is known.

    Raises:
        InputError: it is not; the text names those there are, and the nearest.
    """
    names = list(known)
    if word in names:
        return word
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{what} {word!r} is unknown, there are {', '.join(names)}{hint}")


def make_absolute(path: Path) -> Path:
    """Return the absolute path; shells leave the ~ of --flag=~/folder as it is."""
    return path.expanduser().absolute()


def require_writable(*files: Path | None) -> None:
    """Check that files can be written, before hours of work.

    Raises:
        InputError: one of them cannot.
    """
    for file in files:
        if file is None:
            continue
        trial = file.with_name(file.name + ".tmp")
        try:
            if file.is_dir():
                raise IsADirectoryError("it is a folder")
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error}); give a file in a folder that exists") from error


def open_run_with_cache(folder: Path) -> "Run":
    """Open a run directory, and keep what is compiled from now on in the folder where its training keeps it."""
    from fcn_jax.data.dataset import cache_folder
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.compile_cache import give_back_memory, keep_compiled

    run = open_run(folder)
    keep_compiled(run.options.data.cache or cache_folder())
    give_back_memory()
    return run
