"""`fcn-jax eval RUN [flags]`."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fcn_jax.cli.other_data import OtherData, choose_data
from fcn_jax.cli.words import parse_flags, require_batch_size, require_writable, start_jax
from fcn_jax.config import TILE
from fcn_jax.runtime.progress import hide_progress, show_progress, show_step

if TYPE_CHECKING:
    import numpy as np

    from fcn_jax.data.dataset import Example


@dataclass(frozen=True)
class Eval:
    """Score a run on a split of its data set, or of another one with the same classes; each task has a table."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """run directory, made by `fcn-jax train`"""
    split: str | None = None
    """split to score; None: the run's val-split"""
    data: OtherData = field(default_factory=OtherData)
    on_bad_example: Literal["stop", "skip"] | None = None
    """what to do with examples whose files are missing or damaged; skip: list and leave out; None: as the run did"""
    ignore: tuple[str, ...] = ()
    """names of classes to leave out of the scores, whose pixels count as void; those of a further task as TASK/CLASS"""
    json: Path | None = None
    """JSON file for the scores and the confusion matrix; None: the scores are only printed"""
    picture: Path | None = None
    """PNG file for the first images with their truth and prediction; None: no picture is drawn"""
    step: int | None = None
    """step of the checkpoint to score; None: the best on val"""
    batch_size: int | None = None
    """number of images computed at once, at least 1; None: the run's eval-batch-size"""
    tile: int = TILE
    """side of the tiles in which large images are computed, in pixels, at least 1; 0: compute every image whole"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Score a run and print the scores of its classes as a table."""
    flags = parse_flags(Eval, "eval", words)
    hide_progress(flags.quiet)
    require_batch_size(flags.batch_size)
    require_writable(flags.json, flags.picture)
    from fcn_jax.data.dataset import prepare_configured
    from fcn_jax.data.tasks import find_classes
    from fcn_jax.inference.evaluate import describe_scores, evaluate, format_tables, ignore_classes
    from fcn_jax.inference.segment import default_batch_size
    from fcn_jax.inference.trained import load_trained
    from fcn_jax.inference.visualize import Panels, save_png
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.other_data import select_tasks
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.bucket import find_url
    from fcn_jax.runtime.files import write_atomically
    from fcn_jax.runtime.json_values import to_json
    from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory

    with copy_for_reading(flags.run, flags.step) as folder:
        run = open_run(folder)
        ignored = find_classes(run.tasks, flags.ignore)
        start_jax(flags.data.cache)
        with show_step("reading the checkpoint"):
            trained = load_trained(run, flags.step, labelled=True, tile=flags.tile)
    name = find_url(flags.run) or flags.run
    config, options = choose_data(run, flags.data, flags.split)
    on_bad_example = flags.on_bad_example or run.options.on_bad_example
    dataset = prepare_configured(config, options, on_bad_example == "skip")
    if dataset.left_out:
        print(f"warning: {dataset.left_out}", file=sys.stderr)
    scored = select_tasks(dataset, run, name)
    split = options.val_split or "val"
    source = scored.source(split)
    panels = Panels(source, run.tasks)

    def show(example: "Example", class_map: "np.ndarray") -> None:
        panels.add(example, class_map)
        advance(1)

    with (
        explain_out_of_memory(trained.forward, "evaluation", IN_EVALUATION) as forward,
        show_progress("scoring", len(source), "images") as advance,
    ):
        result = evaluate(
            forward,
            trained.variables,
            source,
            run.tasks,
            default_batch_size(flags.batch_size or run.options.eval_batch_size),
            run.options.workers,
            show,
            trained.tiling,
        )
    result = ignore_classes(result, ignored)
    print(format_tables(result))
    print(
        f"{result.num_examples} images of {dataset.name} {split} in {result.seconds:.1f} s, "
        f"{result.num_examples / result.seconds:.1f} images/s, "
        f"{result.programs} canvas size{'s' * (result.programs != 1)}; step {trained.step} of {name}"
    )
    if flags.json:
        scores = {"step": trained.step, "split": split, **describe_scores(result)}
        write_atomically(flags.json, json.dumps(to_json(scores), indent=1) + "\n")
    if flags.picture and (picture := panels.draw()) is not None:
        save_png(picture, flags.picture)
