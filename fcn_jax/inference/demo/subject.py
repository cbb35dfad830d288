"""What the page of a demo is about: a run, its score, and images of its val split to try."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fcn_jax.data.dataset import prepare_configured
from fcn_jax.errors import InputError
from fcn_jax.inference.spread import spread_indices
from fcn_jax.inference.visualize import save_png
from fcn_jax.runs.metrics_log import find_scores
from fcn_jax.runs.run_dir import Run

DRAWN = "shapes"  # the data set that needs no files


class Subject(NamedTuple):
    """What the page is about.

    Attributes:
        title: a line that names the network and its data.
        description: its training and score.
        class_names: the name of each class.
        palette: the colour of each class.
        examples: image files to try.
    """

    title: str
    description: str
    class_names: tuple[str, ...]
    palette: UInt8[np.ndarray, "classes 3"]
    examples: Sequence[Path]


def describe_run(run: Run, step: int, examples: Sequence[Path]) -> Subject:
    """Describe a run for the page.

    Args:
        run: the run.
        step: the step of the checkpoint that the page uses.
        examples: image files to try.
    """
    model, split = run.config.model, run.options.data.val_split or "val"
    scores = find_scores(run.folder, step) or {"mean_iu": None}
    mean_iu = scores["mean_iu"]
    score = "not scored" if mean_iu is None else f"mean IU {100 * mean_iu:.1f} % on {split}"
    return Subject(
        f"{model.head} on {model.backbone}, trained on {run.config.data.name}",
        f"{len(run.class_names)} classes, step {step}, {score}.",
        run.class_names,
        run.palette,
        examples,
    )


def require_colour(run: Run) -> None:
    """Raise InputError unless the network takes photographs: colour alone."""
    given = run.config.model.input_or_default
    if not given.is_colour_alone:
        raise InputError(
            f"{run.folder} takes {' and '.join(name for name, _ in given.channels)}, and the page takes photographs; "
            "segment files by `fcn-jax predict`"
        )


def write_examples(run: Run, folder: Path, count: int) -> list[Path]:
    """Write images of the run's val split as PNGs, evenly spread over it. Nothing is downloaded for them.

    Args:
        run: the run.
        folder: the folder to make for them.
        count: greatest number of images.

    Raises:
        InputError: the data set is not on this machine.
    """
    data, options = run.config.data, run.options.data
    if options.dir is None and data.name != DRAWN:
        raise InputError(f"the run's {data.name} was downloaded; train with --data.dir to have examples")
    source = prepare_configured(data, options, run.options.on_bad_example == "skip").source(options.val_split or "val")
    folder.mkdir()
    files = []
    for index in spread_indices(len(source), count):
        example = source[index]
        files.append(folder / f"{example.name.replace('/', '_')}.png")
        save_png(example.picture, files[-1])
    return files
