"""Atomic writes, locks between processes, checksums of files, and the folders of the user."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import filelock

from fcn_jax.errors import InputError


@contextlib.contextmanager
def replace_atomically(file: Path, sync: bool = True, shared: bool = False) -> Iterator[Path]:
    """Rename a temporary file to its final name once it is complete.

    The temporary file is removed when the block raises, and the final file is then as it was before. What a killed
    process leaves is overwritten by the next one, unless `shared`.

    Args:
        file: the final name.
        sync: wait until the content is on the disk before renaming, so that a crash of the machine cannot leave an
            empty file. False saves time for files that can easily be made again.
        shared: several processes may write the file at the same time, and the last one stays. Otherwise only one may.

    Yields:
        The path to write to: a temporary name in the same folder.
    """
    temporary = file.with_name(file.name + (f".{uuid.uuid4().hex}" if shared else "") + ".tmp")
    try:
        yield temporary
        if sync:
            with temporary.open("r+b") as stream:  # Windows only syncs what is open for writing
                os.fsync(stream.fileno())
        temporary.replace(file)
        if sync:
            _sync(file.parent)
    except BaseException as error:  # Ctrl-C as well
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(file)  # the name that the user knows
        raise


def sync_tree(folder: Path) -> None:
    """Wait until all files in a folder, and the folder by its name, are on the disk.

    A crash of the machine, or a disk that is taken away, then leaves them as they are.
    """
    for path in (*folder.rglob("*"), folder, folder.parent):
        _sync(path)


def _sync(path: Path) -> None:
    if os.name == "nt":  # Windows syncs only what is open for writing, and no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write a file so that readers see either the old content or the new one, never a part of it."""
    with replace_atomically(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def make_folder_atomically(out: Path) -> Iterator[Path]:
    """Make a folder under a temporary name, and rename it when the block ends; if it raises, nothing is left.

    Args:
        out: the final name, which must not exist, or be an empty folder that can be removed and made anew. A mounted
            folder, a link and the working directory are refused.

    Yields:
        The folder to write to, beside `out`.

    Raises:
        InputError: `out` is in use, or cannot be made.
    """
    was_there = os.path.lexists(out)
    if was_there and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; give a new folder, or remove it")
    if was_there and out.samefile(Path.cwd()):
        raise InputError(f"{out} is the working directory; give another --out")
    try:
        if was_there:
            out.rmdir()  # tells now whether it can be replaced
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror or error}); give another --out") from error
    try:
        yield folder
        folder.chmod(0o755)
        sync_tree(folder)
        try:
            folder.replace(out)
        except OSError as error:
            raise InputError(f"{out} cannot be made ({error.strerror or error}); give another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if was_there:
            out.mkdir(exist_ok=True)


@contextlib.contextmanager
def lock_file(file: Path) -> Iterator[bool]:
    """Let one process at a time into the block; the others wait.

    The system frees the lock of a process that is killed.

    Args:
        file: an empty file that stands for the lock. It is made, with its folder, and stays.

    Yields:
        True if the lock is held. False on file systems without locks, such as some network file systems. Other
        processes may then be in the block too.

    Raises:
        InputError: the folder cannot be written.
    """
    with _open_lock(file, "--data.cache") as stream:
        free = _lock(stream.fileno(), blocking=False)
        if free is False:
            print(f"waiting for another process that works in {file.parent}", file=sys.stderr, flush=True)
            free = _lock(stream.fileno(), blocking=True)
        yield free is True


@contextlib.contextmanager
def try_lock(file: Path, otherwise: str, flag: str = "--run-dir") -> Iterator[bool]:
    """Let one process into the block, as `lock_file` does; the others get an error instead of waiting.

    Args:
        file: an empty file that stands for the lock.
        otherwise: text of the error if another process holds the lock.
        flag: the flag that names the folder of the lock.

    Yields:
        True if the lock is held, False on file systems without locks.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    with _open_lock(file, flag) as stream:
        free = _lock(stream.fileno(), blocking=False)
        if free is False:
            raise InputError(otherwise)
        yield free is True


@contextlib.contextmanager
def try_lock_folder(folder: Path, otherwise: str) -> Iterator[bool]:
    """Let one process into the block, as `try_lock` does, without a file: the folder itself is locked.

    Args:
        folder: a folder that is there.
        otherwise: text of the error if another process holds the lock.

    Yields:
        True if the lock is held, False where folders cannot be locked, as on Windows.

    Raises:
        InputError: another process holds the lock.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        free = _lock(handle, blocking=False)
        if free is False:
            raise InputError(otherwise)
        yield free is True
    finally:
        os.close(handle)


def is_lfs_pointer(start: bytes) -> bool:
    """Return whether a file is what Git leaves in place of a large file that was not fetched, by its first bytes."""
    return start.startswith(b"version https://git-lfs.github.com/spec/")


def expand_home(path: str | Path) -> Path:
    """Expand ~ at the start of a path, which shells do not expand in --flag=~/folder.

    Raises:
        InputError: `path` is no path, or the user has no home directory.
    """
    try:
        return Path(path).expanduser()
    except TypeError as error:
        raise InputError(f"{path!r} is no path; give a str or a pathlib.Path") from error
    except RuntimeError as error:
        raise InputError(f"{path} cannot be expanded ({error}); set HOME, or give a path without ~") from error


def find_cache_folder(given: Path | None = None) -> Path:
    """Return the folder of prepared data, downloads and compiled programs: the one that is given, or the default.

    The default is `fcn_jax` in the user's cache directory. A user without a home directory, as in many containers, has
    a folder among the temporary files.

    Raises:
        InputError: the folder among the temporary files belongs to another user.
    """
    if given is not None:
        return expand_home(given)
    if directory := os.environ.get("XDG_CACHE_HOME"):
        return Path(directory) / "fcn_jax"
    try:
        return Path.home() / ".cache" / "fcn_jax"
    except RuntimeError:
        folder = Path(tempfile.gettempdir(), f"fcn_jax-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user; set HOME or XDG_CACHE_HOME, or give --data.cache")
    return folder


def sha256(file: Path) -> str:
    """Compute the SHA-256 checksum of a file, as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_lock(file: Path, flag: str) -> IO[str]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a")  # never truncates the file of another process
    except OSError as error:
        raise InputError(
            f"the folder {file.parent} cannot be written ({error.strerror}); "
            f"make it writable, or name another one with {flag}"
        ) from error


def _lock(handle: int, blocking: bool) -> bool | None:
    """Lock what is open: True if it is locked, False if another process holds it, None if locks are not supported."""
    try:
        return filelock.lock_descriptor(handle, blocking=blocking)
    except OSError:
        return None
