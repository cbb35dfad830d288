"""Folders in the buckets of object stores, such as s3://bucket/folder."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_jax.errors import InputError
from fcn_jax.runtime.files import expand_home

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

STORES = ("s3", "gs")  # those whose packages are in the extra `bucket`


def find_url(path: str | Path) -> str | None:
    """Return the URL of a folder in a bucket, such as s3://bucket/folder, or None for a path of this machine.

    s3:/bucket/folder is such a URL too, because `pathlib` joins slashes.
    """
    match = re.fullmatch(r"([a-z][a-z0-9]+):/+(.+?)/*", str(path))
    return None if match is None else f"{match[1]}://{match[2]}"


def make_absolute(path: Path) -> Path:
    """Make a path absolute and expand ~ at its start. The URL of a bucket stays as it is."""
    return expand_home(path).absolute() if find_url(path) is None else path


def open_bucket(url: str) -> "AbstractFileSystem":
    """Open a folder in a bucket. Nothing is read yet.

    Args:
        url: from `find_url`.

    Returns:
        A file system whose names are relative to the folder. A write replaces a whole object, or leaves it as it was.

    Raises:
        InputError: the object store is unknown, or the package for it is not installed.
    """
    if url.split(":")[0] not in STORES:
        raise InputError(
            f"{url} is neither a folder here nor in a bucket; give a local folder, s3://BUCKET/FOLDER or "
            "gs://BUCKET/FOLDER"
        )
    try:
        # fsspec comes with the packages of the extra, and takes a tenth of a second.
        from fsspec.core import url_to_fs
        from fsspec.implementations.dirfs import DirFileSystem

        # Other machines change the bucket, so listings are not kept.
        store, root = url_to_fs(url, use_listings_cache=False)
        return DirFileSystem(root, store)
    except ImportError as error:
        raise InputError(f'{url} needs another package ({error}); install it with pip install "fcn-jax[bucket]"') from (
            error
        )


@contextlib.contextmanager
def explain_refusal(url: str) -> Iterator[None]:
    """Explain the errors that an object store raises in the block.

    Raises:
        InputError: the bucket could not be read or written.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each object store has errors of its own
        raise InputError(
            f"{url} cannot be used ({describe(error)}); check that the bucket exists, that its credentials are known "
            "here, and that the network reaches it"
        ) from error


def describe(error: Exception) -> str:
    """Describe an error of an object store in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
