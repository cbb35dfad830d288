"""The archive of masks that the test server of a data set takes."""

import contextlib
import io
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_jax.data.large_images import lift_limit, read_size
from fcn_jax.data.sources.source import DataSource
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.runtime.files import replace_atomically
from fcn_jax.runtime.threads import map_in_threads


def choose_folder(source: DataSource, target: Path, split: str, competition: str | None) -> str:
    """Return the folder of the masks in the archive for a data set's test server; empty: they are in no folder.

    Args:
        source: the data set.
        target: the archive.
        split: the split that is segmented.
        competition: the competition to take part in; None: the first one of the data set, if it has any.

    Raises:
        InputError: the data set has no test server, or not this competition, or its archives have another ending.
    """
    form = source.submission
    if form is None:
        raise InputError(f"{source.name} has no test server, so there is no submission; leave --submission out")
    if not target.name.endswith(form.endings):
        raise InputError(f"submission is {target}; the server of {source.name} takes {' or '.join(form.endings)}")
    if competition not in (None, *form.competitions):
        raise InputError(
            f"competition is {competition}; the server of {source.name} has "
            f"{', '.join(form.competitions) or 'no competitions'}, so leave --competition out"
        )
    chosen = competition or next(iter(form.competitions), "")
    return form.folder.format(competition=chosen, split=split)


def write_submission(
    files: Sequence[Path], out: Path, outputs: Outputs, target: Path, folder: str, workers: int = 4
) -> None:
    """Write the archive of the masks of all images, and check each mask. It is complete or not there.

    Args:
        files: the images.
        out: the folder that has their masks.
        outputs: how the masks were written.
        target: the archive, a ZIP archive if its ending is .zip, otherwise a tar archive that gzip compresses.
        folder: the folder of the masks in it; empty: they are in no folder.
        workers: number of threads that check masks.

    Raises:
        InputError: a mask is not what the server takes, or the archive cannot be written.
    """

    def check(file: Path) -> tuple[str, bytes]:
        mask = out / f"{file.stem}.png"
        return f"{folder}/{mask.name}" if folder else mask.name, read_mask(mask, file, outputs)

    try:
        with replace_atomically(target) as temporary, _open_archive(temporary, target.suffix == ".zip") as add:
            for name, data in map_in_threads(check, files, workers):
                add(name, data)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}); make room, or give another --submission") from error


def read_mask(mask: Path, image: Path, outputs: Outputs) -> bytes:
    """Read the file of a mask, and check that it has the size of its image and no pixel that is not of a class.

    Args:
        mask: the mask.
        image: its image.
        outputs: how it was written.

    Raises:
        InputError: it is no whole PNG of the form in `outputs`, or has another size or other values.
    """
    remedy = "the same command with --overwrite makes it anew"
    try:
        data = mask.read_bytes()
        with lift_limit(), Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            mode, size, values = picture.mode, picture.size, np.unique(np.asarray(picture))
    except Exception as error:  # Pillow raises errors of many types for damaged data
        raise InputError(f"{mask} cannot be read ({error}); {remedy}") from error
    expected = read_size(image)
    if size != expected:
        raise InputError(
            f"{mask} has {size[0]}x{size[1]} pixels, and its image {image.name} {expected[0]}x{expected[1]}: they must "
            f"be the same; remove the EXIF orientation of the image if it has one, otherwise {remedy}"
        )
    known = np.arange(len(outputs.palette)) if outputs.values is None else outputs.values
    wrong = np.setdiff1d(values, known).tolist()
    if mode != ("P" if outputs.values is None else "L") or wrong:
        found = f"the values {', '.join(map(str, wrong))}" if wrong else f"mode {mode}"
        kind = "palette PNG with indices" if outputs.values is None else "grey PNG with values"
        raise InputError(f"{mask} has {found}; the server takes a {kind} of the {len(known)} classes; {remedy}")
    return data


@contextlib.contextmanager
def _open_archive(file: Path, as_zip: bool) -> Iterator[Callable[[str, bytes], None]]:
    """Open an archive to write, and yield the function that adds a file by name and content."""
    if as_zip:
        with zipfile.ZipFile(file, "w") as archive:  # not compressed: a PNG becomes no smaller
            yield archive.writestr
        return
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), int(time.time())
            archive.addfile(member, io.BytesIO(data))

        yield add
