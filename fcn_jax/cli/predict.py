"""`fcn-jax predict RUN IMAGE... [flags]`."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from fcn_jax.cli.other_data import OtherData, choose_data
from fcn_jax.cli.words import parse_flags, require_batch_size, require_writable, start_jax
from fcn_jax.config import TILE
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import hide_progress, show_progress, show_step

if TYPE_CHECKING:
    from fcn_jax.data.dataset import Example
    from fcn_jax.data.label_map import LabelMap
    from fcn_jax.inference.outputs import Outputs
    from fcn_jax.inference.read_inputs import Reader
    from fcn_jax.inference.segment import Segmented
    from fcn_jax.inference.tta import Views
    from fcn_jax.runs.run_dir import Run


@dataclass(frozen=True)
class Predict:
    """Segment photographs of any size, videos, and splits. The same command goes on after an interruption.

    Images that are done are kept. A video is segmented anew.

    OUT/<stem>.png holds the index of each pixel's class, OUT/<stem>_overlay.png shows the classes over the photograph.
    Of a video OUT/<stem>_overlay.mp4 is written, and OUT/<stem>/ with the class map of each frame. It needs ffmpeg.
    With several tasks these are the files of the first one; those of another have <stem>_TASK in place of <stem>.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(at least one is required, or --split)"),
    ]
    """image files, folders of images, or globs; videos by their names"""
    split: str | None = None
    """split to segment instead of IMAGE..., with labels or without, as test; None: the images that are named"""
    data: OtherData = field(default_factory=OtherData)
    inputs: tuple[str, ...] = ()
    """further inputs of the network, each as NAME=FOLDER with files that have the names of the images: depth=scans"""
    out: Path = Path("predictions")
    """folder for the results"""
    step: int | None = None
    """step of the checkpoint to use; None: the best on val"""
    batch_size: int | None = None
    """number of images computed at once, at least 1; None: the run's eval-batch-size"""
    tile: int = TILE
    """side of the tiles in which large images are computed, in pixels, at least 1; 0: compute every image whole"""
    tta: bool = False
    """average the probabilities over mirrored and resized views: the same as --flip --scales 0.75 1 1.25"""
    flip: bool = False
    """average the probabilities over each image and its mirror image"""
    scales: tuple[float, ...] | None = None
    """average the probabilities over each image resized by these factors, above 0; None: the image's own size"""
    probabilities: bool = False
    """also write OUT/<stem>.npz: `probabilities`, float16[height, width, classes], and their `entropy` in nats"""
    polygons: bool = False
    """also write OUT/polygons.json: the connected regions of all images, in COCO's format"""
    counts: bool = False
    """also write OUT/counts.csv: the number of pixels of each class in each image"""
    submission: Path | None = None
    """archive of --split's masks for a test server: .tgz for voc2012, .zip for cityscapes and ade20k; None: none"""
    competition: Literal["comp5", "comp6"] | None = None
    """competition of voc2012's server; comp5: trained on VOC 2012 alone; comp6: on other images, too; None: comp6"""
    source_values: bool = False
    """write masks as grey PNGs with the numbers that the classes have in the masks of the run's data"""
    alpha: float = 0.5
    """weight of the class colours in the overlay, 0 to 1"""
    legend: bool = False
    """put the names of the classes below the overlay"""
    overwrite: bool = False
    """make all results anew; otherwise those of the same network, flags and unchanged image files are kept"""
    quiet: bool = False
    """show no progress and no names of results; warnings and errors are still printed"""


class Split(NamedTuple):
    """A split to segment.

    Attributes:
        images: its image files.
        folder: the folder of the masks in a submission.
        label_maps: the map of each task by which a submission's masks have numbers; empty: they have the indices of the
            classes.
    """

    images: list[Path]
    folder: str = ""
    label_maps: "Sequence[LabelMap]" = ()


def run(words: list[str]) -> None:
    """Segment photographs and print the file name of each result."""
    flags = parse_flags(Predict, "predict", words)
    hide_progress(flags.quiet)
    require_batch_size(flags.batch_size)
    from fcn_jax.data.tasks import count_classes
    from fcn_jax.inference.predict import (
        describe_left_out,
        find_images,
        make_results_folder,
        predict,
        require_own_results,
    )
    from fcn_jax.inference.resume import Origin, describe_network, find_done, list_sources
    from fcn_jax.inference.segment import default_batch_size
    from fcn_jax.inference.submission import write_submission
    from fcn_jax.inference.trained import load_trained
    from fcn_jax.inference.tta import segment_views
    from fcn_jax.inference.video import is_video, predict_video
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.files import try_lock_folder
    from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory

    views = _choose_views(flags)
    _check_split_flags(flags)
    named = [] if flags.split is not None else find_images(flags.images)
    require_own_results(named)
    files, videos = [file for file in named if not is_video(file)], [file for file in named if is_video(file)]
    images_alone = ("probabilities", "polygons", "counts", "source_values", "legend")
    if videos and (given := [name.replace("_", "-") for name in images_alone if getattr(flags, name)]):
        raise InputError(f"{videos[0]} is a video, and --{given[0]} is for images; leave one of them out")
    for line in describe_left_out(flags.images):
        print(line, file=sys.stderr)
    with copy_for_reading(flags.run, flags.step) as folder:
        run = open_run(folder)
        split = None if flags.split is None else _find_split(flags, run, flags.split)
        files = files if split is None else split.images
        reader = _choose_reader(flags, run, bool(videos))
        outputs = _choose_outputs(flags, run, split)
        start_jax(flags.data.cache)
        probabilities = flags.probabilities or views is not None
        with show_step("reading the checkpoint"):
            trained = load_trained(run, flags.step, labelled=False, probabilities=probabilities, tile=flags.tile)
    batch_size, workers = default_batch_size(flags.batch_size or run.options.eval_batch_size), run.options.workers
    network = describe_network(run.config.model, trained.step, trained.variables, views, outputs)
    origin = Origin(network, list_sources({file: reader.list_files(file) for file in files}))
    make_results_folder(flags.out)
    with (
        try_lock_folder(flags.out, f"another prediction writes to {flags.out}; wait for it, or give another --out"),
        explain_out_of_memory(trained.forward, "prediction", IN_EVALUATION) as forward,
    ):
        done = [] if flags.overwrite else find_done(files, flags.out, outputs, origin)

        def segment(examples: Iterable["Example"], sizes: Sequence[tuple[int, int]] = ()) -> Iterator["Segmented"]:
            counts = count_classes(run.tasks)
            return segment_views(
                forward, trained.variables, examples, batch_size, views, trained.tiling, workers, counts, sizes
            )

        for video in videos:
            frames = 0
            with show_progress(f"segmenting {video.name}", None, "frames") as advance:
                for _ in predict_video(segment, video, flags.out, outputs):
                    frames += 1
                    advance(1)
            if not flags.quiet:
                print(f"{flags.out / video.stem}_overlay.mp4: {frames} frames")
        began = time.perf_counter()
        if files:
            results = predict(segment, files, flags.out, outputs, workers, origin, done, flags.overwrite, reader.read)
            _show(results, len(done), len(files), flags.quiet)
        if flags.submission and split:
            write_submission(files, flags.out, outputs, flags.submission, split.folder, workers)
    if files and not flags.quiet:
        kept = f"; {len(done)} others were done already, --overwrite makes them anew" if done else ""
        seconds, new = time.perf_counter() - began, len(files) - len(done)
        print(f"{new} image{'s' * (new != 1)} in {seconds:.1f} s{kept}", file=sys.stderr)
    if flags.submission and not flags.quiet:
        print(f"{flags.submission}: {len(files)} masks, each checked", file=sys.stderr)


def _show(results: Iterable[Path], done: int, total: int, quiet: bool) -> None:
    """Wait for the results, and show their number with the rate, and the name of each unless a bar is in the way."""
    named = not quiet and not (sys.stdout.isatty() and sys.stderr.isatty())
    with show_progress("segmenting", total, "images", done) as advance:
        for file in results:
            advance(1)
            if named:
                print(file, flush=True)


def _check_split_flags(flags: Predict) -> None:
    """Raise InputError if flags that need a split have none, or do not fit each other."""
    if flags.split is None:
        for name, value in (("data", flags.data != OtherData()), ("submission", flags.submission)):
            if value:
                raise InputError(f"--{name} is for the split of a data set, and none is named; give --split NAME")
    elif flags.images:
        raise InputError(f"both {flags.images[0]} and --split {flags.split} are given; give images or a split")
    if flags.competition and not flags.submission:
        raise InputError(f"--competition {flags.competition} is for a submission; give --submission FILE, too")
    if flags.submission and flags.source_values:
        raise InputError("--submission decides the values in masks by what the server takes; leave --source-values out")
    require_writable(flags.submission)


def _find_split(flags: Predict, run: "Run", name: str) -> Split:
    """List the images of a split, and choose the form of the masks that the data set's server takes."""
    from fcn_jax.data.dataset import find_configured
    from fcn_jax.data.sources import get_source
    from fcn_jax.data.split_images import list_images
    from fcn_jax.data.tasks import describe_classes
    from fcn_jax.inference.predict import require_own_results
    from fcn_jax.inference.submission import choose_folder

    config, options = choose_data(run, flags.data, name)
    source = get_source(config.name)
    folder = choose_folder(source, flags.submission, name, flags.competition) if flags.submission else ""
    found = find_configured(config, options)
    images = list_images(config.name, found, name)
    require_own_results(images, "give the folders of the images in place of --split, each with its own --out")
    if not flags.submission or not source.submission:
        return Split(images)
    if [task.class_names for task in run.tasks] != [task.class_names for task in found.tasks]:
        raise InputError(
            f"{flags.run} was trained on the classes {describe_classes(run.tasks)}, and the server of {source.name} "
            f"wants {', '.join(found.class_names)}; give a run with the same classes"
        )
    return Split(images, folder, () if source.submission.has_palette else [task.label_map for task in found.tasks])


def _choose_reader(flags: Predict, run: "Run", videos: bool) -> "Reader":
    from fcn_jax.data.sources import choose_inputs, get_source
    from fcn_jax.inference.read_inputs import make_reader, parse_folders

    data, given = run.config.data, run.config.model.input_or_default
    if videos and not given.is_colour_alone:
        raise InputError("a video has colours, and the network takes other inputs; give images")
    return make_reader(choose_inputs(get_source(data.name), data.inputs), given, parse_folders(flags.inputs))


def _choose_views(flags: Predict) -> "Views | None":
    from fcn_jax.inference.tta import FLIP_AND_SCALES, Views

    default = FLIP_AND_SCALES if flags.tta else Views()
    views = Views(default.scales if flags.scales is None else flags.scales, flags.flip or default.flip)
    return None if views == Views() else views


def _find_label_maps(run: "Run") -> "Sequence[LabelMap]":
    """Return the label map of each task that the run stores. Runs of older versions have none, so it is their data's.

    Raises:
        InputError: the run has none, and its data is not there.
    """
    from fcn_jax.data.dataset import find_configured

    stored = [task.label_map for task in run.tasks if task.label_map is not None]
    if len(stored) == len(run.tasks):
        return stored
    try:
        return [task.label_map for task in find_configured(run.config.data, run.options.data).tasks]
    except InputError as error:
        raise InputError(
            f"{run.folder} is of an older version, which did not store the numbers of masks, and its data cannot be "
            f"read: {error}. Bring it back, or leave out --source-values"
        ) from error


def _choose_outputs(flags: Predict, run: "Run", split: Split | None) -> "Outputs":
    from fcn_jax.data.label_map import find_values
    from fcn_jax.inference.outputs import Outputs

    maps = split.label_maps if split else ()
    if flags.source_values:
        maps = _find_label_maps(run)
    values = [find_values(own, len(task.class_names)) for own, task in zip(maps, run.tasks, strict=False)]
    return Outputs(
        run.palette,
        run.class_names,
        values[0] if values else None,
        flags.alpha,
        flags.legend,
        flags.probabilities,
        flags.counts,
        flags.polygons,
        run.tasks[1:],
        tuple(values[1:]) if values else None,
    )
