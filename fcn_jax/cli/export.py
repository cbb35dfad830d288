"""`fcn-jax export RUN --out DIR [flags]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fcn_jax.cli.words import parse_flags, start_jax
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import hide_progress


@dataclass(frozen=True)
class Export:
    """Write a trained network as files for use without this package, and check each of them.

    DIR gets model.onnx, model.stablehlo, model.safetensors, README.md with an example for each, and parity.json. The
    programs take images of any size, uint8 in RGB, and give class maps, with several tasks one for each. Each is loaded
    again in its own runtime and compared with the network; if it differs, nothing is written.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    out: Path
    """folder to make for the files"""
    step: int | None = None
    """step of the checkpoint to export; None: the best on val"""
    formats: tuple[Literal["onnx", "stablehlo"], ...] = ("onnx", "stablehlo")
    """programs to write; ONNX needs the extra `export`"""
    probabilities: bool = False
    """give the probabilities of the classes of each task, too, float32[batch, height, width, classes]"""
    images: tuple[str, ...] = ()
    """image files, folders or globs to compare on; none: images of the run's val split"""
    count: int = 16
    """number of images to compare on, at least 1, evenly spread over those there are"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Export a network and print how each file compares with it."""
    flags = parse_flags(Export, "export", words)
    hide_progress(flags.quiet)
    if flags.count < 1:
        raise InputError(f"count is {flags.count}; it must be at least 1")
    from fcn_jax.data.dataset import prepare_configured
    from fcn_jax.inference.export.export import export
    from fcn_jax.inference.predict import find_images
    from fcn_jax.inference.read_image import read_image
    from fcn_jax.inference.segment import make_unlabelled
    from fcn_jax.inference.spread import choose_evenly
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.other_data import select_tasks
    from fcn_jax.runs.run_dir import open_run

    files = find_images(flags.images) if flags.images else []
    with copy_for_reading(flags.run, flags.step) as folder:
        run = open_run(folder)
        start_jax(None)
        given = run.config.model.input_or_default
        if files and not given.is_colour_alone:
            raise InputError(
                f"the network takes {' and '.join(name for name, _ in given.channels)}, and images are colours alone; "
                "leave --images out, to compare on the run's val split"
            )
        if files:
            chosen = choose_evenly(files, flags.count)
            examples = [make_unlabelled(file.name, read_image(file), len(run.tasks)) for file in chosen]
        else:
            try:
                dataset = prepare_configured(run.config.data, run.options.data, run.options.on_bad_example == "skip")
                source = select_tasks(dataset, run, flags.run).source(run.options.data.val_split or "val")
            except InputError as error:
                raise InputError(
                    f"the images that the run was scored on cannot be read: {error}. Give other images to compare on: "
                    "--images FILES"
                ) from error
            examples = choose_evenly(source, flags.count)
        export(
            run,
            flags.out,
            examples,
            step=flags.step,
            formats=flags.formats,
            probabilities=flags.probabilities,
            say=lambda line: print(line, flush=True),
        )
    print(f"written: {flags.out}; its README.md says how to use the files")
