"""Fetches a large file and makes sure of it; also the progress lines and the lock for preparing data."""

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.runtime import files
from fcn_jax.runtime.files import lock_file
from fcn_jax.runtime.progress import show_progress

CHUNK = 1 << 16  # bytes; what of it came before a connection broke is lost
TIMEOUT = 30  # seconds without a byte
PAUSES = (1, 2, 4, 8)  # seconds before each new try; a try that brought something starts them anew
locked, progress = lock_file, show_progress  # former names, while there are callers of them
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


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
    with lock_file(file.with_name(file.name + ".lock")):
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
            show_progress(f"fetching {name}", total, "B", start) as advance,
        ):
            while data := response.read(CHUNK):
                out.write(data)
                got += len(data)
                advance(len(data))
    if total is not None and got < total:
        raise ConnectionError(f"the connection broke after {got} of {total} bytes")


def _verify(url: str, part: Path, sha256: str, size: int | None) -> None:
    got = files.sha256(part)
    bytes_ = part.stat().st_size
    if not got.startswith(sha256.lower()) or size not in (None, bytes_):
        part.unlink()
        raise InputError(
            f"what came from {url} has {bytes_} bytes and the SHA-256 {got}; the rule is "
            f"{'' if size is None else f'{size} bytes and '}{sha256}: it was damaged on the way, or is another "
            "file; it was removed, so try again, or fetch it by other means"
        )
