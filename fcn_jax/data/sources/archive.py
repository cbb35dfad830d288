"""Official archives: fetch them with their checksum, and unpack them so that a folder is there only when complete."""

import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError
from fcn_jax.runtime.download import download
from fcn_jax.runtime.files import lock_file
from fcn_jax.runtime.progress import show_progress


class Archive(NamedTuple):
    """An archive that its owner offers to everybody.

    Attributes:
        file: the name to save it as.
        url: its address, https.
        sha256: its checksum.
        size: its size in bytes; None: it is not known.
    """

    file: str
    url: str
    sha256: str
    size: int | None = None


def name_folder(name: str, cache: Path) -> Path:
    """Return the folder of the cache that the fetched archives of a data set are unpacked into."""
    return cache / name / "official"


def fetch_unpacked(
    name: str, archives: Sequence[Archive], request: Request, layout: str, wanted: re.Pattern[str]
) -> Path:
    """Fetch archives and unpack them into one folder of the cache, unless that folder is there.

    Args:
        name: the name of the data set.
        archives: its archives, tar files, which may be compressed.
        request: the user's flags, with the cache.
        layout: what the user may give as `--data.dir` instead, for the message.
        wanted: the paths in the archives of the files that are unpacked.

    Returns:
        The folder.

    Raises:
        InputError: an archive cannot be fetched or unpacked.
    """
    folder = name_folder(name, request.cache)
    if folder.exists():
        return folder
    files = [fetch(archive, request.cache, layout) for archive in archives]

    def extract(part: Path) -> None:
        for file in files:
            _extract_wanted(file, part, wanted)

    names = " and ".join(map(str, files))
    unpack(names, folder, extract, f"make room, or remove {names}, so that it is fetched anew")
    return folder


def fetch(archive: Archive, cache: Path, layout: str) -> Path:
    """Download an archive unless it is in the cache.

    Args:
        archive: what to fetch.
        cache: the folder for downloads.
        layout: what the user may give as `--data.dir` instead, for the message.

    Returns:
        The file.

    Raises:
        InputError: it cannot be fetched; the text says what to do then.
    """
    try:
        return download(archive.url, cache / "downloads" / archive.file, archive.sha256, archive.size)
    except InputError as error:
        raise InputError(f"{error}\nIf you have the data already, give --data.dir, which is {layout}") from error


def unpack(archive: str, folder: Path, extract: Callable[[Path], None], remedy: str) -> None:
    """Make a folder of what an archive has, unless it is there. Of several processes one does it, and the others wait.

    The folder gets its name when it is complete, so that a killed process leaves nothing that looks complete.

    Args:
        archive: the path of the archive, for the message.
        folder: the folder to make.
        extract: writes the files into the folder that it is given.
        remedy: what the user can do if that fails, for the message.

    Raises:
        InputError: the archive is damaged, or the folder cannot be written.
    """
    with lock_file(folder.with_name(folder.name + ".lock")) as locked:
        if folder.exists():
            return
        if locked:
            for leftover in folder.parent.glob(f"{folder.name}.*.part"):  # of a killed process
                shutil.rmtree(leftover, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            extract(part)
            part.rename(folder)
        except InputError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        except Exception as error:  # tarfile raises errors of many types for damaged archives
            shutil.rmtree(part, ignore_errors=True)
            reason = str(error).partition("\n")[0].rstrip(":")
            if not folder.exists():  # without file locks another process may have unpacked it
                raise InputError(
                    f"{archive} cannot be unpacked into {folder} ({reason}): it is not an archive, is incomplete, or "
                    f"the disk is full; {remedy}"
                ) from error


def extract_file(tar: tarfile.TarFile, member: tarfile.TarInfo, part: Path) -> None:
    """Extract a file or folder of an archive. Nothing is written outside `part`.

    Raises:
        tarfile.TarError: the member is something else, or its path leads out of `part`.
    """
    if not (member.isdir() or (member.isfile() and not member.issparse())):
        raise tarfile.ReadError(f"{member.name!r} is a link, a device or a sparse file; the official one has none")
    tar.extract(member, part, filter="data")


def _extract_wanted(file: Path, part: Path, wanted: re.Pattern[str]) -> None:
    """Extract the wanted files of an archive in the order in which they are, so that it is read once."""
    with tarfile.open(file, "r|*") as tar, show_progress(f"unpacking {file.name}", None, "files") as advance:
        for member in tar:
            if member.isfile() and wanted.fullmatch(member.name):
                extract_file(tar, member, part)
                advance(1)
