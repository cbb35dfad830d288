"""Download large files over https, resume after a broken connection, and verify the result."""

import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from fcn_jax.errors import InputError
from fcn_jax.runtime import files
from fcn_jax.runtime.progress import show_progress

CHUNK = 1 << 16  # bytes read at once; a chunk that is incomplete when the connection breaks is lost
TIMEOUT = 30  # seconds without a byte before an attempt fails
PAUSES = (1, 2, 4, 8)  # seconds before each further attempt; they start anew after an attempt that received bytes
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, file: str | Path, sha256: str, size: int | None = None) -> Path:
    """Download a file unless it is there. A download that was interrupted is resumed.

    The file is named with `.part` at its end until it is complete and its checksum is right. Of several processes one
    downloads and the others wait.

    Args:
        url: address of the file: https, or http of this machine.
        file: path to save it as.
        sha256: its checksum, 64 hexadecimal digits. With fewer, at least 8, only the first digits are compared. That
            finds damage, but another file with the same first digits can be made: https alone protects against forgery.
        size: its size in bytes if known; a server's file of another size is refused before it is downloaded.

    Returns:
        The path of the file.

    Raises:
        InputError: the address or a redirection is not https, the file cannot be downloaded or written, or it has
            another checksum or size.
        ValueError: the checksum does not have 8 to 64 digits.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"the checksum is {sha256!r}; it must be 8 to 64 hexadecimal digits")
    _require_https(url)
    file = Path(file)
    part = file.with_name(file.name + ".part")
    with files.lock_file(file.with_name(file.name + ".lock")):
        if not file.exists():
            try:
                _fetch(url, part, size, f"try again later, or fetch {url} by other means and save it as {file}")
                _verify(url, part, sha256, size)
                part.replace(file)
            except OSError as error:
                raise InputError(
                    f"{part} cannot be written ({error.strerror}); make room, or name another folder"
                ) from error
    return file


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirections to https only."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    """Raise InputError if others could read or change on the way what is fetched."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise InputError(
            f"{url} is not fetched, because it is not https and others could change the file on the way; fetch it by "
            "other means, and compare its checksum"
        )


def _fetch(url: str, part: Path, size: int | None, remedy: str) -> None:
    """Connect until the file is complete, or until all `PAUSES` have passed without progress."""
    pauses = iter(PAUSES)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _append_rest(url, part, before, size, remedy)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing follows: the file is complete or another one, see _verify
                return None
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise InputError(f"{url} cannot be fetched: the server says {reason}; {remedy}") from error
        except _BROKEN as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            reason = str(cause) or type(cause).__name__
            if isinstance(cause, socket.gaierror):  # no network or no such server: waiting seconds does not help
                raise InputError(f"{url} cannot be reached ({reason}): no network? {remedy}") from error
        after = part.stat().st_size if part.exists() else 0
        if after > before:
            pauses = iter(PAUSES)
        pause = next(pauses, None)
        if pause is None:
            kept = f"; the {after / 1e6:.1f} MB that arrived are in {part}, and the next attempt resumes from there"
            raise InputError(f"{url} cannot be fetched: {reason}; {remedy}{kept if after else ''}")
        time.sleep(pause)


def _append_rest(url: str, part: Path, start: int, size: int | None, remedy: str) -> None:
    """Connect once and append what follows byte `start`, or start over if the server cannot resume."""
    headers = {"User-Agent": "fcn_jax", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_HttpsOnly)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url} gives a web page, not a file (it may have moved, or needs a log-in); {remedy}")
        if response.status != 206:
            start = 0
        elif not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server did not resume at the byte that was asked for")
        length = response.headers["Content-Length"]
        total = size if length is None else start + int(length)
        if size not in (None, total):
            raise InputError(f"{url} has {total} bytes, and {size} are expected: it is another file; {remedy}")
        name, received = url.rsplit("/", 1)[-1], start
        with (
            part.open("ab" if start else "wb") as out,
            show_progress(f"fetching {name}", total, "B", start) as advance,
        ):
            while data := response.read(CHUNK):
                out.write(data)
                received += len(data)
                advance(len(data))
    if total is not None and received < total:
        raise ConnectionError(f"the connection broke after {received} of {total} bytes")


def _verify(url: str, part: Path, sha256: str, size: int | None) -> None:
    """Check size and checksum, and remove a file that does not have them."""
    found, found_size = files.sha256(part), part.stat().st_size
    if not found.startswith(sha256.lower()) or size not in (None, found_size):
        part.unlink()
        raise InputError(
            f"the file from {url} has {found_size} bytes and the SHA-256 {found}; the rule is "
            f"{'' if size is None else f'{size} bytes and '}{sha256}. It is damaged or another file, and was removed; "
            "try again, or fetch it by other means"
        )
