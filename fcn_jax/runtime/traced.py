"""Keep traced programs on the disk for the next start, beside the compiled ones.

JAX finds a compiled program by its text, and to have the text it traces and lowers Python code: half of the time from a
start to the first step. `keep_traced` finds the text by what it was made of.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import pickle
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
from jax import export

from fcn_jax import IMPORTED
from fcn_jax.layers.backend import is_cpu, is_single_device, wants_plain
from fcn_jax.runtime.files import replace_atomically
from fcn_jax.runtime.versions import hash_code, list_code, read_versions

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")  # whose code programs are traced with
DIGEST = hashlib.sha256().digest_size

_folder: ContextVar[Path | None] = ContextVar("folder of traced programs", default=None)


def keep_in(folder: Path) -> None:
    """Let `keep_traced` keep programs in a folder from now on; without this call it keeps none.

    A program is run as it is found, so the folder is one that others cannot write to, like that of compiled programs.
    """
    _folder.set(folder)
    if is_cpu():
        # JAX imports it (0.2 s) before it runs an exported program on CPUs. Here a start does so while it waits for
        # files.
        threading.Thread(target=importlib.import_module, args=("scipy.linalg.cython_lapack",)).start()


@contextlib.contextmanager
def trace_anew() -> Iterator[None]:
    """Let `keep_traced` and `keep_shapes` keep nothing in the block, so that programs can be looked into."""
    token = _folder.set(None)
    try:
        yield
    finally:
        _folder.reset(token)


def keep_traced(function: Callable[..., Any], *key: Any) -> Callable[..., Any]:
    """Make a function for `jax.jit` that is traced in Python at the first start only.

    The next starts read what JAX traced (`jax.export`), if the code of this package, the versions of JAX and its kin,
    JAX's settings, the kind of device, the key and the shapes of the arguments are the same. The first start runs the
    program that it writes, so all starts have the same numbers.

    With several devices nothing is kept, because the places of the arguments would be a part of the program. Nor is it
    if the key has a class or function of another package, whose code nobody compares.

    Args:
        function: function of trees of arrays, made of this package's code. It is not replaced by others meanwhile.
        key: everything that the function depends on besides its arguments, with texts (`repr`) that say all of it.

    Returns:
        A function with the same results. It is `function` itself if nothing is kept.
    """
    find = _find_files(function, key)
    if find is None:
        return function

    def run(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        shapes = [jax.typeof(leaf) for leaf in leaves]
        kept = _read_or_make(find(tree, shapes), lambda: _trace(function, tree, shapes))
        if kept is None:  # as on a full disk
            return function(*arguments)
        program, results = kept
        return jax.tree.unflatten(results, export.deserialize(program).call(*leaves))

    run.__name__ = _name(function)  # programs are named by it
    return run


def keep_shapes(function: Callable[[], Any], *key: Any) -> Any:
    """Return what `jax.eval_shape(function)` returns. The next starts read it, under the conditions of `keep_traced`.

    Args:
        function: function of no arguments, made of this package's code.
        key: everything that the function depends on, with texts (`repr`) that say all of it.
    """

    def make() -> Any:
        return jax.eval_shape(function)

    find = _find_files(function, key)
    shapes = None if find is None else _read_or_make(find("shapes"), make)
    return make() if shapes is None else shapes


def _find_files(function: Callable[..., Any], key: tuple[Any, ...]) -> Callable[..., Path] | None:
    """Return the function that finds the file for what depends on the key and on more; None: nothing is kept."""
    folder, text = _folder.get(), repr(key)
    if folder is None or not is_single_device() or wants_plain():
        return None
    if not _is_known(key) or " at 0x" in text:  # an address is no description
        return None
    if (code := _describe_code()) is None:
        return None
    name, start = _name(function), [text, code, jax.devices()[0].device_kind, jax.config.values]

    def find(*more: Any) -> Path:
        made_of = repr([name, *start, *more])
        return folder / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()}-traced"

    return find


def _is_known(value: Any) -> bool:
    """Return whether the code of all classes and functions in a value is part of `_describe_code`.

    That of a user's own backbone is not, and it may have changed since the last start.
    """
    if isinstance(value, (tuple, list)):
        return all(map(_is_known, value))
    package = getattr(value, "__module__", "builtins").partition(".")[0]
    if package not in (__name__.partition(".")[0], "builtins", "pathlib", *PACKAGES):
        return False
    fields = () if isinstance(value, type) or not dataclasses.is_dataclass(value) else dataclasses.fields(value)
    return all(_is_known(getattr(value, field.name)) for field in fields)


def _name(function: Any) -> str:
    return getattr(function, "func", function).__name__  # that of a `partial` is its function's


def _trace(function: Callable[..., Any], tree: Any, shapes: list[Any]) -> tuple[bytearray, Any]:
    """Trace a function of flat arguments, and return the program with the structure of its results."""
    results = None

    def flat(*leaves: Any) -> list[Any]:
        nonlocal results
        values, results = jax.tree.flatten(function(*jax.tree.unflatten(tree, leaves)))
        return values

    arguments = [jax.ShapeDtypeStruct(shape.shape, shape.dtype, weak_type=shape.weak_type) for shape in shapes]
    return export.export(jax.jit(flat))(*arguments).serialize(), results


def _read_or_make(file: Path, make: Callable[[], Any]) -> Any:
    """Read what is kept in a file, or make it and write it first; None: it cannot be made or kept."""
    kept = _read(file)
    if kept is None:
        try:
            content = pickle.dumps(make())
        except Exception:  # of any type: JAX does not export every operation; an error of the function comes again
            return None
        with (
            contextlib.suppress(OSError),  # as of a full disk, which costs time alone
            replace_atomically(file, sync=False, shared=True) as temporary,
        ):
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        kept = _read(file)
    return kept


def _read(file: Path) -> Any:
    """Read what is kept in a file; None: it is not there, or not what was written."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    whole = hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]
    return pickle.loads(content[DIGEST:]) if whole else None


@functools.cache
def _describe_code() -> str | None:
    """Hash the code of this package, and the versions of what it is traced with; None: they are not known."""
    files = list_code()
    if not files or any(file.stat().st_mtime > IMPORTED for file in files):  # the process may have the code before
        return None
    return " ".join([hash_code(), *read_versions(PACKAGES).values()])
