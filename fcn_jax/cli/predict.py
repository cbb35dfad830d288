"""`fcn-jax predict RUN IMAGE... [flags]`."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fcn_jax.cli.words import require_batch_size, start_jax
from fcn_jax.config import TILE


@dataclass(frozen=True)
class Predict:
    """Segment photographs of any size.

    OUT/<stem>.png holds the index of each pixel's class, OUT/<stem>_overlay.png shows the classes over the photograph.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(at least one is required)"),
    ]
    """image files, folders of images, or globs"""
    out: Path = Path("predictions")
    """folder for the results"""
    step: int | None = None
    """step of the checkpoint to use; None: the best on val"""
    batch_size: int | None = None
    """number of images computed at once, at least 1; None: the run's eval-batch-size"""
    tile: int = TILE
    """side of the tiles in which large images are computed, in pixels, at least 1; 0: compute every image whole"""


def run(words: list[str]) -> None:
    """Segment photographs and print the file name of each result."""
    flags = tyro.cli(Predict, prog="fcn-jax predict", args=words)
    require_batch_size(flags.batch_size)
    from fcn_jax.inference.predict import describe_left_out, find_images, predict
    from fcn_jax.inference.segment import default_batch_size
    from fcn_jax.inference.trained import load_trained
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory

    files = find_images(flags.images)
    for line in describe_left_out(flags.images):
        print(line, file=sys.stderr)
    with copy_for_reading(flags.run, flags.step) as folder:
        run = open_run(folder)
        start_jax(None)
        trained = load_trained(run, flags.step, labelled=False, tile=flags.tile)
    batch_size = default_batch_size(flags.batch_size or run.options.eval_batch_size)
    began = time.perf_counter()
    with explain_out_of_memory(trained.forward, "prediction", IN_EVALUATION) as forward:
        results = predict(
            forward,
            trained.variables,
            files,
            flags.out,
            run.palette,
            batch_size,
            run.options.workers,
            trained.tiling,
        )
        for count, file in enumerate(results, 1):
            print(f"{count}/{len(files)} {file}")
    print(f"{len(files)} images in {time.perf_counter() - began:.1f} s")
