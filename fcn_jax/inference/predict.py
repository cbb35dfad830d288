"""Segment image files with a trained network and write the results as files."""

import contextlib
import glob
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fcn_jax.data.dataset import Example
from fcn_jax.data.image_kinds import describe_others, split_by_kind
from fcn_jax.data.inputs import Pixels
from fcn_jax.data.large_images import read_size
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs, write_results
from fcn_jax.inference.read_image import read_image
from fcn_jax.inference.resume import Origin, write_origin
from fcn_jax.inference.segment import Segmented, make_unlabelled
from fcn_jax.inference.summaries import write_summaries
from fcn_jax.inference.video import is_video
from fcn_jax.runtime.threads import map_in_threads


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Find the image files that file names, folders and globs stand for, each file once, in this order.

    Raises:
        InputError: there are no patterns, a name or glob matches nothing, or a folder has no image.
    """
    if not patterns:
        raise InputError(
            "no images are named; give files, folders or globs after the run directory, or the --split of a data set"
        )
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = _list_folder(path).images
        elif path.is_file():
            found = [path]
        else:
            found = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
        if not found and path.is_dir():
            left_out = describe_left_out([pattern])
            raise InputError(
                "\n  ".join([f"folder {path} holds no image; give another folder, or files by name", *left_out])
            )
        if not found:
            raise InputError(f"{pattern} matches no file; give an image, a folder or a glob")
        files += found
    return list(dict.fromkeys(files))


def require_own_results(files: Sequence[Path], remedy: str = "give each its own --out") -> None:
    """Raise InputError if two images or videos would have the same result, because their stems are equal or overlap."""
    writers: dict[str, Path] = {}
    for file in files:
        for name in _name_results(file):
            other = writers.setdefault(name, file)
            if other != file:
                raise InputError(f"{other} and {file} would both be written as {name}; {remedy}")


def describe_left_out(patterns: Sequence[str]) -> list[str]:
    """Describe what `find_images` leaves out of each folder: sub-folders, and files that Pillow does not read."""
    lines = []
    for folder in [folder for folder in map(Path, patterns) if folder.is_dir()]:
        _, others, folders = _list_folder(folder)
        videos = [file for file in others if is_video(file)]
        if videos:
            lines.append(f"{folder}: left out are videos, as {videos[0].name}; name each of them to segment it")
        if rest := [file for file in others if file not in videos]:
            lines.append(f"{folder}: left out are {describe_others(rest)}")
        if folders:
            names = ", ".join(sub.name for sub in folders[:5]) + (", ..." if len(folders) > 5 else "")
            count = f"{len(folders)} sub-folder{'s' * (len(folders) > 1)}"
            lines.append(
                f"{folder}: left out are {count}, {names}; give '{folder}/**/*.png' or the like to include them"
            )
    return lines


def predict(
    segment: Callable[[Iterable[Example], Sequence[tuple[int, int]]], Iterable[Segmented]],
    files: Sequence[Path],
    out: Path,
    outputs: Outputs,
    workers: int = 4,
    origin: Origin | None = None,
    done: Sequence[Path] = (),
    overwrite: bool = False,
    read: Callable[[Path], Pixels] = read_image,
) -> Iterator[Path]:
    """Write the results of each image file: see `outputs.Outputs`.

    Threads read images and write results while the devices compute, the largest images first. Each result file is
    complete or not there, also after Ctrl-C.

    Args:
        segment: computes the class maps of examples with these heights and widths, and their probabilities if `outputs`
            has them.
        files: images with different stems.
        out: folder for the results; it is made if it does not exist.
        outputs: what is written for each image, and for all of them at the end.
        workers: number of threads that read, and number of threads that write.
        origin: what the results are made by, to be written to `out`; None: nothing is.
        done: the files whose results are there already, by `resume.find_done` with the same origin.
        overwrite: whether the results of other images that are there are to be made anew, too, by the next call.
        read: reads the image of a file, as the network takes it (`read_inputs.make_reader`).

    Yields:
        The mask of each other image once all its files are written.

    Raises:
        InputError: `out` is not a folder that can be written to, or a result would overwrite another one, one of
            `files` or, with an `origin`, any file that is no result. If some files cannot be read, the error is raised
            once all other results are written.
    """
    written: dict[Path, Path] = {}
    for file in files:
        for name in outputs.name_files(file.stem):
            other = written.setdefault((out / name).resolve(), file)
            if other != file:  # a.png and a_TASK.png
                raise InputError(f"{other} and {file} would both be written as {name}; give each its own --out")
    for file in files:
        if file.resolve() in written:
            raise InputError(f"{file} would be overwritten by a result; give another --out than {out}")
    make_results_folder(out)
    if origin is not None:
        with _explain_failure(out):
            write_origin(origin, out, outputs, keep=not overwrite)

    def write(result: Segmented) -> Path:
        try:
            return write_results(result, out, outputs)
        except OSError as error:
            file = out / f"{result.example.name}.png"
            raise InputError(f"{file} cannot be written ({error}); make room, or give another --out") from error

    unreadable: list[str] = []
    finished = {file.stem for file in done}
    remaining = [file for file in files if file.stem not in finished]
    # Largest first: smaller images can then use the programs of larger ones, and a lack of memory shows at once.
    sized = zip(map_in_threads(read_size, remaining, workers), remaining, strict=True)
    ordered = sorted(sized, key=lambda pair: -math.prod(pair[0]))
    examples = _read_examples([file for _, file in ordered], read, unreadable, workers)
    sizes = [(height, width) for (width, height), _ in ordered]
    for file in map_in_threads(write, segment(examples, sizes), workers):
        finished.add(file.stem)
        yield file
    write_summaries([file for file in files if file.stem in finished], out, outputs)
    if unreadable:
        raise InputError("\n  ".join([f"{len(unreadable)} of {len(files)} images are left out:", *unreadable]))


def make_results_folder(out: Path) -> None:
    """Make the folder for the results, unless it is there.

    Raises:
        InputError: it is no folder, or cannot be written to.
    """
    with _explain_failure(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


@contextlib.contextmanager
def _explain_failure(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error  # without the name of the file that was tried
        raise InputError(f"{out} cannot be made a folder for the results ({reason}); give another --out") from error


class _Listing(NamedTuple):
    images: list[Path]
    others: list[Path]
    folders: list[Path]


def _list_folder(folder: Path) -> _Listing:
    """List the images of a folder, its other files and its sub-folders; hidden ones are in no list."""
    seen = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    images, others = split_by_kind(file for file in seen if not file.is_dir())
    return _Listing(images, others, [file for file in seen if file.is_dir()])


def _name_results(file: Path) -> tuple[str, str]:
    """Return the names of what is written for an image or a video: class indices and overlay."""
    if is_video(file):
        return file.stem, f"{file.stem}_overlay.mp4"
    return f"{file.stem}.png", f"{file.stem}_overlay.png"


def _read_examples(
    files: Sequence[Path], read: Callable[[Path], Pixels], unreadable: list[str], workers: int
) -> Iterator[Example]:
    """Read images in threads; append the errors of those that cannot be read to `unreadable`."""

    def read_example(file: Path) -> Example | InputError:
        try:
            return make_unlabelled(file.stem, read(file))
        except InputError as error:
            return error

    for result in map_in_threads(read_example, files, workers):
        if isinstance(result, InputError):
            unreadable.append(str(result))
        else:
            yield result
