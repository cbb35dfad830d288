"""`fcn-jax report RUN [RUN...] [flags]`."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fcn_jax.cli.other_data import OtherData, choose_data
from fcn_jax.cli.words import parse_flags, require_batch_size, require_writable, start_jax
from fcn_jax.config import TILE
from fcn_jax.errors import InputError
from fcn_jax.runtime.progress import hide_progress, show_step

if TYPE_CHECKING:
    from fcn_jax.inference.report.page import Report as Contents


@dataclass(frozen=True)
class Report:
    """Write scores, curves and examples of runs as one HTML page, which needs no other file and no network.

    A folder of staged training stands for all of its stages. Where the images of a run are gone, or it has no
    checkpoint yet, the page has what the run logged.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN...", help_behavior_hint="(at least one is required)"),
    ]
    """run directories, made by `fcn-jax train`; several are put side by side"""
    out: Path | None = None
    """HTML file to write; None: report.html in the first RUN"""
    count: int | None = None
    """number of images to score, at least 1, evenly spread over the split; None: all of them"""
    split: str | None = None
    """split to score; None: the val-split of each run"""
    data: OtherData = field(default_factory=OtherData)
    step: int | None = None
    """step of the checkpoint to score; None: the best on val"""
    explain: bool = True
    """draw figures that explain the network: streams, receptive field, kernels, heat maps; up to a minute on a CPU"""
    batch_size: int | None = None
    """number of images computed at once, at least 1; None: the run's eval-batch-size"""
    tile: int = TILE
    """side of the tiles in which large images are computed, in pixels, at least 1; 0: compute every image whole"""
    quiet: bool = False
    """show no progress; results, warnings and errors are still printed"""


def run(words: list[str]) -> None:
    """Report runs and print the score of each, and the file."""
    flags = parse_flags(Report, "report", words)
    hide_progress(flags.quiet)
    require_batch_size(flags.batch_size)
    if not flags.runs:
        raise InputError("no run is named; give one run directory or more")
    if flags.count is not None and flags.count < 1:
        raise InputError(f"count is {flags.count}; it must be at least 1")
    from fcn_jax.inference.report.page import format_percent, render_page
    from fcn_jax.inference.report.record import find_stages
    from fcn_jax.runs.mirror import copy_for_reading
    from fcn_jax.runs.run_dir import open_run
    from fcn_jax.runtime.bucket import find_url
    from fcn_jax.runtime.files import write_atomically

    if flags.out is None and (url := find_url(flags.runs[0])):
        raise InputError(f"a report of {url} needs a place: give --out FILE")
    for path in flags.runs:
        if not find_url(path):
            for folder in find_stages(path):
                open_run(folder)
    out = flags.out or flags.runs[0] / "report.html"
    require_writable(out)
    start_jax(flags.data.cache)
    short = Counter(path.resolve().name for path in flags.runs)
    reports: list[Contents] = []
    for path in flags.runs:
        name = find_url(path) or (path.resolve().name if short[path.resolve().name] == 1 else str(path))
        with copy_for_reading(path, flags.step, for_report=True) as folder:
            for stage in find_stages(folder):
                report = _collect(stage, name if stage == folder else f"{name}/{stage.name}", flags)
                reports.append(report)
                scores = report.scores
                found = f"mean IU {format_percent(scores.evaluation.metrics.mean_iu)} %" if scores else report.missing
                print(f"{report.name}: {found}", flush=True)
    with show_step("drawing the page"):
        page = render_page(reports).encode(errors="replace")  # JSON may have halves of characters
    write_atomically(out, page)
    print(f"written: {out}, {len(page) / 1e6:.1f} MB")


def _collect(folder: Path, name: str, flags: Report) -> "Contents":
    """Read a run and score it. Data that is gone is no error, unless it was asked for."""
    from fcn_jax.data.dataset import prepare_configured
    from fcn_jax.inference.report.page import Report as Contents
    from fcn_jax.inference.report.record import read_record
    from fcn_jax.inference.report.score import score_run
    from fcn_jax.inference.segment import default_batch_size
    from fcn_jax.runs.run_dir import open_run

    run = open_run(folder)
    record = read_record(run)
    if not record.checkpoints and flags.step is None:
        if not record.steps:
            raise InputError(f"{folder} has neither checkpoints nor logged steps; report it once it has some")
        return Contents(
            name, run, record, missing="The run has no checkpoint yet, so nothing was scored for this page."
        )
    config, options = choose_data(run, flags.data, flags.split)
    split = options.val_split or "val"
    try:
        dataset = prepare_configured(config, options, run.options.on_bad_example == "skip")
        dataset.source(split)
    except InputError as error:
        if flags.data != OtherData() or flags.split is not None:
            raise
        reason = f"The images of the run cannot be read, so what needs them is left out: {error}."
        return Contents(name, run, record, missing=reason)
    scores = score_run(
        run,
        dataset,
        split,
        step=flags.step,
        count=flags.count,
        batch_size=default_batch_size(flags.batch_size or run.options.eval_batch_size),
        tile=flags.tile,
        explain=flags.explain,
    )
    return Contents(name, run, record, scores)
