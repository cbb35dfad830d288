"""Runs in a bucket: a training works in a folder of this machine, which is copied to the bucket after each save.

Object stores can neither append nor rename, so the run is not written there directly. In the bucket a checkpoint is
complete once it has its manifest, which is uploaded last and removed first.
"""

import contextlib
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from fcn_jax.config import HEADS
from fcn_jax.errors import Diverged, InputError, OutOfMemory, WriteFailed
from fcn_jax.runs.checkpoint_files import MANIFEST, SCORES, find_best, is_step, list_complete, read_scores
from fcn_jax.runtime.bucket import describe, explain_refusal, find_url, open_bucket
from fcn_jax.runtime.files import find_cache_folder, try_lock
from fcn_jax.runtime.processes import fail_together

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONFIG, METRICS, SCORED = "config.json", "metrics.jsonl", f"checkpoints/{SCORES}"
TRAINER = "trainer"  # the object that names the training which writes the run
PAUSES = (2, 10, 60)  # seconds before each further attempt to write to a bucket that does not answer


class Mirror:
    """A run in a bucket and the folder in which it is trained.

    Only the first process writes to the bucket. Each process has a folder of its own.

    Attributes:
        url: the run in the bucket, such as s3://bucket/folder.
        folder: the run directory on this machine.
    """

    def __init__(self, url: str, folder: Path):
        """Copy a run from a bucket into an empty folder; a bucket without a run leaves it empty.

        Raises:
            InputError: the bucket cannot be read, or the folder in it holds other files.
        """
        self.url, self.folder = url, folder
        self._bucket = open_bucket(url)
        with explain_refusal(url):
            names = _list_names(self._bucket)
            if names - {TRAINER} and CONFIG not in names:
                raise InputError(f"{url} holds files but is not a run directory; give a new or an empty --run-dir")
            self._trainer = self._read_trainer()
            self._steps = set(_list_steps(names))
            _download(self._bucket, names, self._steps, folder)
        self._uploaded = {name: _stamp(folder / name) for name in _list_files(folder)}
        self._me: str | None = None

    def claim(self) -> None:
        """Make this training the one that writes the run, and upload what it has written so far.

        It is called again when the training begins anew.

        A bucket has no locks. A training that has claimed the run before ends at its next upload.

        Raises:
            InputError: the bucket cannot be written, or another training has claimed the run since it was copied.
        """
        if jax.process_index() != 0:
            return
        with explain_refusal(self.url):
            if self._me is None:
                if self._read_trainer() != self._trainer:
                    raise InputError("another process has trained this run meanwhile; give the same command again")
                self._me = uuid.uuid4().hex
                self._bucket.pipe_file(TRAINER, self._me.encode())
            self._upload()

    def share(self) -> None:
        """Give every process a copy of the run as the first one has it. All processes have to call this.

        Raises:
            WriteFailed: the bucket cannot be written.
            InputError: the bucket cannot be read, or another training has claimed the run.
        """
        with fail_together():
            self.upload()
        with fail_together(), explain_refusal(self.url):
            if jax.process_index() != 0:
                shutil.rmtree(self.folder)
                self.folder.mkdir()
                names = _list_names(self._bucket)
                _download(self._bucket, names, _list_steps(names), self.folder)

    def upload(self) -> None:
        """Copy what is new to the bucket. No checkpoint may be written meanwhile; other files may.

        Raises:
            WriteFailed: the bucket cannot be written.
            InputError: another training has claimed the run.
        """
        if self._me is None:
            return
        for pause in (*PAUSES, None):
            try:
                self._upload()
                break
            except InputError:
                raise
            except Exception as error:  # each object store has errors of its own
                if pause is None:
                    raise WriteFailed(
                        f"{self.url} cannot be written ({describe(error)}); mend that, then the same command goes on "
                        "from the last checkpoint there"
                    ) from error
                time.sleep(pause)

    def _upload(self) -> None:
        if self._read_trainer() != self._me:
            raise InputError(
                f"another training has taken {self.url} over, or its objects are gone; what this one has done since "
                "its last upload is not kept. Wait for the other, or give another --run-dir"
            )
        metrics = self.folder / METRICS
        lines = metrics.read_bytes() if metrics.exists() else b""  # read before the scores of the states in it
        for name in _list_files(self.folder):
            stamp = _stamp(self.folder / name)
            if name != METRICS and self._uploaded.get(name) != stamp:
                self._bucket.pipe_file(name, (self.folder / name).read_bytes())
                self._uploaded[name] = stamp
        self._bucket.pipe_file(METRICS, lines)
        steps = list_complete(self.folder / "checkpoints")
        for step in steps:
            if step not in self._steps:
                self._upload_step(step)
        self._remove_all_but(steps)

    def _upload_step(self, step: int) -> None:
        folder = self.folder / "checkpoints" / str(step)
        files = [str(file) for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / MANIFEST]
        self._bucket.put(files, [Path(file).relative_to(self.folder).as_posix() for file in files])
        self._bucket.put_file(str(folder / MANIFEST), f"checkpoints/{step}/{MANIFEST}")
        self._steps.add(step)

    def _remove_all_but(self, steps: Collection[int]) -> None:
        """Remove all other checkpoints from the bucket, half-saved ones too."""
        former: dict[str, list[str]] = {}
        for name in _list_names(self._bucket):
            match name.split("/"):
                case ["checkpoints", step, *_] if is_step(step) and int(step) not in steps:
                    former.setdefault(step, []).append(name)
        for step, names in former.items():
            for name in sorted(names, key=lambda name: not name.endswith(f"/{step}/{MANIFEST}")):
                self._bucket.rm_file(name)
            self._steps.discard(int(step))

    def _read_trainer(self) -> str | None:
        try:
            return str(self._bucket.read_text(TRAINER))
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def open_mirror(url: str, cache: Path | None, say: Callable[[str], None]) -> Iterator[Mirror]:
    """Copy a run from a bucket to train it, and upload the rest when the block ends.

    The copy is removed then. If it cannot be uploaded, it is kept under another name, which the error gives.

    Args:
        url: the run in the bucket, which may not exist yet.
        cache: folder in which the run is trained; None: `find_cache_folder()`.
        say: function that shows a line to the user.

    Raises:
        InputError: the bucket cannot be used, another training has taken the run over, or one of this machine runs.
        WriteFailed: the bucket cannot be written.
    """
    place = find_cache_folder(cache) / "runs" / url.replace("://", "/") / f"process-{jax.process_index()}"
    with try_lock(
        place / "lock", f"another process of this machine trains in {url}; wait for it to end", "--data.cache"
    ):
        folder = place / "run"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed training has left; the bucket alone counts
        folder.mkdir()
        mirror = Mirror(url, folder)
        say(f"{url} is trained in {folder}, and uploaded after each save")
        try:
            with _name_url(url, folder):
                yield mirror
        except (Diverged, OutOfMemory, InputError):
            try:
                _upload_or_keep(mirror)
            except (InputError, WriteFailed) as error:  # the first error says what to do
                print(f"warning: {error}", file=sys.stderr)
            raise
        except BaseException:
            _upload_or_keep(mirror)  # if it fails, what was to be saved is not
            raise
        else:
            _upload_or_keep(mirror)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _upload_or_keep(mirror: Mirror) -> None:
    """Upload the rest of a run. If the bucket cannot be written, keep the run directory under another name.

    Raises:
        WriteFailed: the bucket cannot be written.
        InputError: another training has claimed the run.
    """
    try:
        mirror.upload()
    except InputError:  # another training has the run now
        raise
    except BaseException as error:  # Ctrl-C while it waits, too
        kept = mirror.folder.with_name(f"kept-{uuid.uuid4().hex[:8]}")
        mirror.folder.replace(kept)
        where = f"Later checkpoints are kept in the run directory {kept}"
        if isinstance(error, WriteFailed):
            raise WriteFailed(f"{error}. {where}") from error
        print(f"warning: {where}", file=sys.stderr)
        raise


@contextlib.contextmanager
def copy_for_reading(run_dir: Path, step: int | None = None, for_report: bool = False) -> Iterator[Path]:
    """Yield the run directory; of a run in a bucket a temporary copy with one of its checkpoints.

    Args:
        run_dir: the run directory, or its URL in a bucket.
        step: the checkpoint to copy; None: the best by mean IU on the val split.
        for_report: whether a run without a checkpoint is copied, too, and all stages of a staged training.

    Raises:
        InputError: the bucket cannot be read, or there is no run, no checkpoint, or none of `step`.
    """
    url = find_url(run_dir)
    if url is None:
        yield run_dir
        return
    with tempfile.TemporaryDirectory(prefix="fcn_jax-") as temporary:
        folder = Path(temporary, url.replace("://", "/"))
        with explain_refusal(url):
            try:
                _download_run(url, step, folder, for_report)
            except FileNotFoundError:  # a training that goes on has removed it, and has written a later one before
                shutil.rmtree(folder, ignore_errors=True)  # it may not even be made
                _download_run(url, step, folder, for_report)
        with _name_url(url, folder):
            yield folder


@contextlib.contextmanager
def _name_url(url: str, folder: Path) -> Iterator[None]:
    """Name the run in the bucket in the errors that the block raises about the copy of it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(folder), url)) from error


def _download_run(url: str, step: int | None, folder: Path, for_report: bool) -> None:
    bucket = open_bucket(url)
    names = _list_names(bucket)
    if CONFIG in names:
        _download_one(bucket, names, url, step, folder, needs_checkpoint=not for_report)
        return
    stages = [head for head in HEADS if f"{head}/{CONFIG}" in names]
    if not stages:
        raise InputError(f"{url} is not a run directory: it has no config.json; give what `train --run-dir` made")
    if not for_report:
        raise InputError(f"{url} has the stages of a staged training; give one, as {url}/{stages[-1]}")
    for head in stages:
        _download_run(f"{url}/{head}", step, folder / head, for_report)


def _download_one(
    bucket: "AbstractFileSystem",
    names: Collection[str],
    url: str,
    step: int | None,
    folder: Path,
    needs_checkpoint: bool,
) -> None:
    steps = _list_steps(names)
    _download(bucket, names, (), folder)
    if not (steps or needs_checkpoint):
        return
    if step is None and steps:
        best = find_best(steps, read_scores(folder / "checkpoints"))
        step = steps[-1] if best is None else best
    if step not in steps:
        which, there = "" if step is None else f" {step}", ", ".join(map(str, steps)) or "none"
        raise InputError(f"{url} has no checkpoint{which}; there are: {there}; train it on, or give another")
    _download(bucket, names, (step,), folder)


def _download(bucket: "AbstractFileSystem", names: Collection[str], steps: Collection[int], folder: Path) -> None:
    """Download what a run goes on from: configuration, metrics, scores and some checkpoints."""
    beginnings = tuple(f"checkpoints/{step}/" for step in steps)
    wanted = [name for name in names if name in (CONFIG, METRICS, SCORED) or name.startswith(beginnings)]
    if wanted:
        bucket.get(wanted, [str(folder / name) for name in wanted])


def _list_names(bucket: "AbstractFileSystem") -> set[str]:
    """List the names of all objects of a run. Those that end with a slash stand for folders.

    Raises:
        InputError: the name of an object leads out of the folder of the run.
    """
    names = {name for name in bucket.find("") if name and not name.endswith("/")}
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"the bucket has an object {name!r}, whose name leads out of the run directory; remove it")
    return names


def _list_steps(names: Collection[str]) -> list[int]:
    """List the steps of the complete checkpoints among the objects of a run, in order."""
    parts = [name.split("/") for name in names]
    return sorted(
        int(p[1]) for p in parts if len(p) == 3 and p[0] == "checkpoints" and is_step(p[1]) and p[2] == MANIFEST
    )


def _list_files(folder: Path) -> list[str]:
    """List the files of a run directory that are not in a checkpoint, by their relative names."""
    names = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
    outside = [name for name in names if name.parts[0] != "checkpoints" or name == Path(SCORED)]
    return [name.as_posix() for name in outside if name.name != "lock" and name.suffix != ".tmp"]


def _stamp(file: Path) -> tuple[int, int]:
    """Return what differs between two versions of a file: its size, and the time of its last change."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
