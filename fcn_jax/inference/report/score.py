"""One pass over a split that gives everything on the page that needs images."""

import threading
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, UInt8

from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.data.tasks import count_classes, split_maps, split_scores
from fcn_jax.inference.evaluate import Evaluation, evaluate
from fcn_jax.inference.explain.figure import Figure
from fcn_jax.inference.explain.figures import MOST_EXAMPLES, draw_explanations
from fcn_jax.inference.metrics import compute_metrics, confusion_matrix
from fcn_jax.inference.report.boundary import count_boundaries
from fcn_jax.inference.report.calibration import Bins, Calibration, calibrate, make_counting_forward, record_bins
from fcn_jax.inference.report.examples import Shown, Subset, rank, show_examples, take_first_task
from fcn_jax.inference.spread import choose_evenly, spread_indices
from fcn_jax.inference.tiles import plan_tiles
from fcn_jax.models.build import build
from fcn_jax.runs.other_data import select_tasks
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import Run
from fcn_jax.runtime.memory import IN_EVALUATION, explain_out_of_memory
from fcn_jax.runtime.progress import show_progress, show_step


class Scores(NamedTuple):
    """The scores of a checkpoint on a split.

    Attributes:
        step: the step of the checkpoint.
        data: name of the data set.
        split: name of the split.
        available: number of images of the split, of which `evaluation.num_examples` were scored.
        same_data: whether the data set is the one that the run was trained on, by names and sizes.
        evaluation: loss, metrics and confusion matrix.
        boundary_iu: boundary IU of each class, 0 to 1, for each task; NaN for a class in neither truth nor prediction.
        calibration: the reliability diagram of the first task.
        examples: the best, the median and the worst images, by the first task.
        figures: pictures that explain the network, for the first task; none if they were not asked for.
        device: kind and number of the devices that computed them.
    """

    step: int
    data: str
    split: str
    available: int
    same_data: bool
    evaluation: Evaluation
    boundary_iu: tuple[Float64[np.ndarray, "classes"], ...]
    calibration: Calibration
    examples: dict[str, list[Shown]]
    figures: list[Figure]
    device: str

    @property
    def mean_boundary_iu(self) -> float:
        """Mean of `boundary_iu` of the first task over the classes that have one; NaN if none has."""
        present = self.boundary_iu[0][~np.isnan(self.boundary_iu[0])]
        return float(present.mean()) if present.size else float("nan")


def score_run(
    run: Run,
    dataset: Dataset,
    split: str,
    *,
    step: int | None,
    count: int | None,
    batch_size: int,
    tile: int,
    explain: bool = True,
) -> Scores:
    """Score a checkpoint of a run on a split. Of each image only its scores are kept.

    Args:
        run: the run.
        dataset: a data set with the classes of the run.
        split: its split.
        step: the checkpoint; None: the best by mean IU on the val split.
        count: number of images to score, evenly spread over the split; None: all of them.
        batch_size: images to compute at once, a multiple of the number of devices.
        tile: side of the tiles of large images in pixels; 0: every image is computed whole.
        explain: whether to draw the figures that explain the network.

    Raises:
        InputError: the data set has other classes or inputs or no such split, or the run has no such checkpoint, or it
            is damaged.
        OutOfMemory: a batch needs more memory than there is.
    """
    source, classes = select_tasks(dataset, run, run.folder).source(split), count_classes(run.tasks)
    model = build(run.config.model, *classes)
    tiling = plan_tiles(model, tile, run.config.model.input_or_default.num_channels)
    with show_step("reading the checkpoint"):
        variables, step = restore_variables(run, model, step)
    lock, ious, boundaries = threading.Lock(), {}, np.zeros((2, sum(classes)), np.int64)
    bins: list[Bins] = []

    def show(example: Example, prediction: UInt8[np.ndarray, "height width *tasks"]) -> None:
        maps = (split_maps(maps, len(classes)) for maps in (example.label, prediction))
        given = list(zip(*maps, classes, strict=True))
        confusion = confusion_matrix(*given[0])
        counts = np.concatenate([count_boundaries(*task) for task in given], axis=1)
        with lock:
            ious[int(example.name)] = compute_metrics(confusion).mean_iu
            boundaries[:] += counts
            advance(1)

    subset = Subset(source, spread_indices(len(source), count))
    input_config = run.config.model.input_or_default
    counting = make_counting_forward(model, input_config)
    with explain_out_of_memory(counting, "evaluation", IN_EVALUATION) as forward:
        with show_progress(f"scoring {dataset.name} {split}", len(subset), "images") as advance:
            evaluation = evaluate(
                record_bins(forward, bins), variables, subset, run.tasks, batch_size, run.options.workers, show, tiling
            )
        calibration = calibrate(bins)
        examples = show_examples(
            source, rank(ious), ious, record_bins(forward, []), variables, run.palette, batch_size, tiling
        )
        figures: list[Figure] = []
        if explain:
            explained = [take_first_task(example) for example in choose_evenly(source, MOST_EXAMPLES)]
            figures = draw_explanations(model, variables, input_config, explained, run.class_names, run.palette)
    common, union = boundaries
    boundary_iu = np.divide(common, union, out=np.full(len(union), np.nan), where=union > 0)
    return Scores(
        step=step,
        data=dataset.name,
        split=split,
        available=len(source),
        same_data=dataset.contents == run.contents,
        evaluation=evaluation,
        boundary_iu=split_scores(boundary_iu, classes),
        calibration=calibration,
        examples=examples,
        figures=figures,
        device=f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}",
    )
