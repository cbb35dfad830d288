"""Fetches a large file and makes sure of it; also the progress lines and the lock for preparing data."""

import contextlib
import fcntl
import hashlib
import http.client
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from fcn_jax.errors import InputError

CHUNK = 1 << 16  # bytes; what of it came before a connection broke is lost
TIMEOUT = 30  # seconds without a byte
PAUSES = (1, 2, 4, 8)  # seconds before each new try; a try that brought something starts them anew
EVERY = 10  # seconds between progress lines where there is no terminal to draw a bar on
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@contextlib.contextmanager
def progress(what: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Shows how far something is, on the error stream: a bar on a terminal, else a line now and then.

    Args:
        what: what is being done.
        total: how much there is to do, None if unknown.
        unit: "B" for bytes, else the plural of what is counted.
        done: how much was done before.

    Yields:
        a function to call with how much more is done.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=what, unit=unit, unit_scale=unit == "B") as bar:
            yield bar.update
        return

    def line():
        scale, name = (1e6, "MB") if unit == "B" else (1, unit)
        of = "" if total is None else f" of {total / scale:.0f}"
        print(f"{what}: {done / scale:.0f}{of} {name}", file=sys.stderr, flush=True)

    def advance(more: int):
        nonlocal done, last
        done += more
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            line()

    last = time.monotonic()
    line()
    yield advance
    line()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Lets one process at a time into the block; the lock of a process that is killed is free again.

    Args:
        file: an empty file that stands for the lock; it is made, with its folder, and stays.

    Yields:
        False where the file system has no locks, as some network ones have not: then others may be in the block too.

    Raises:
        InputError: if the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("a")
    except OSError as error:
        raise InputError(
            f"the folder {file.parent} cannot be written ({error.strerror}); "
            "prepared data and downloads go there: name another one with --data.cache"
        ) from error
    with handle:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that works in {file.parent}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            held = False
        yield held


def download(url: str, file: str | Path, sha256: str, size: int | None = None) -> Path:
    """Fetches a file unless it is there; what an earlier call or a broken connection left is gone on with.

    The file has another name, with `.part`, until it is whole and its checksum is right.

    Args:
        url: where it is.
        file: where it shall be.
        sha256: its checksum, 64 hexadecimal digits, or the first ones of them where no more are known.
        size: its size in bytes, where known: then a wrong file is refused before it is fetched.

    Returns:
        the path of the file.

    Raises:
        InputError: if the server or the network does not give it, or what it gives is not this file.
    """
    file = Path(file)
    part = file.with_name(file.name + ".part")
    with locked(file.with_name(file.name + ".lock")):
        if not file.exists():
            try:
                _fetch_all(url, part, size, f"try again later, or fetch {url} by other means and save it as {file}")
                _verify(url, part, sha256, size)
                part.replace(file)
            except OSError as error:
                raise InputError(
                    f"{part} cannot be written ({error.strerror}); make room, or name another folder"
                ) from error
    return file


def _fetch_all(url: str, part: Path, size: int | None, remedy: str) -> None:
    pauses = iter(PAUSES)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _fetch(url, part, before, size, remedy)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing after what is here: whole, or not ours; the checksum tells
                return None
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise InputError(f"{url} cannot be fetched: the server says {reason}; {remedy}") from error
        except _BROKEN as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            reason = str(cause) or type(cause).__name__
            if isinstance(cause, socket.gaierror):  # no network, or no such server: waiting seconds does not help
                raise InputError(f"{url} cannot be reached ({reason}): no network? {remedy}") from error
        after = part.stat().st_size if part.exists() else 0
        if after > before:
            pauses = iter(PAUSES)
        pause = next(pauses, None)
        if pause is None:
            kept = f"; the {after / 1e6:.1f} MB that came are in {part}, and the next try goes on from there"
            raise InputError(f"{url} cannot be fetched: {reason}; {remedy}{kept if after else ''}")
        time.sleep(pause)


def _fetch(url: str, part: Path, start: int, size: int | None, remedy: str) -> None:
    """One connection: appends what comes after byte `start`, or starts over where the server cannot."""
    headers = {"User-Agent": "fcn_jax", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} gives a web page, not a file (a log-in, or it has moved?); {remedy}")
        if response.status != 206:
            start = 0
        elif not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server does not go on where it was asked to")
        length = response.headers["Content-Length"]
        total = size if length is None else start + int(length)
        if size not in (None, total):
            raise InputError(f"{url} has {total} bytes where {size} are expected: it is another file; {remedy}")
        name, got = url.rsplit("/", 1)[-1], start
        with (
            part.open("ab" if start else "wb") as out,
            progress(f"fetching {name}", total, "B", start) as advance,
        ):
            while data := response.read(CHUNK):
                out.write(data)
                got += len(data)
                advance(len(data))
    if total is not None and got < total:
        raise ConnectionError(f"the connection broke after {got} of {total} bytes")


def _verify(url: str, part: Path, sha256: str, size: int | None) -> None:
    with part.open("rb") as data:
        got = hashlib.file_digest(data, "sha256").hexdigest()
    bytes_ = part.stat().st_size
    if not got.startswith(sha256.lower()) or size not in (None, bytes_):
        part.unlink()
        raise InputError(
            f"what came from {url} has {bytes_} bytes and the SHA-256 {got}; the rule is "
            f"{'' if size is None else f'{size} bytes and '}{sha256}: it was damaged on the way, or is another "
            "file; it was removed, so try again, or fetch it by other means"
        )
