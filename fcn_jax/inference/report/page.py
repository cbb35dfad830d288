"""The page: what the template shows of each run, and how numbers are written."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fcn_jax.data.tasks import name_scores
from fcn_jax.inference.explain.figure import Figure
from fcn_jax.inference.html_page import load_template
from fcn_jax.inference.metrics import SUMMARY
from fcn_jax.inference.report.chart import Chart, draw_chart
from fcn_jax.inference.report.differences import compare_runs
from fcn_jax.inference.report.pictures import Picture, embed_drawing
from fcn_jax.inference.report.record import PER_CLASS, Record, is_number, read_points
from fcn_jax.inference.report.score import Scores
from fcn_jax.runs.run_dir import Run
from fcn_jax.runtime.json_values import flatten, to_json
from fcn_jax.runtime.memory import format_bytes

MATRIX = 40  # classes; of more the confusion matrix is not shown, because nobody could read it
CONFUSIONS = 10  # number of the largest confusions that are listed
FIGURE_SIDE = 2400  # the longer side of a figure that explains the network has at most so many pixels


class Report(NamedTuple):
    """A run with everything that its page shows.

    Attributes:
        name: name of the run, for the reader.
        run: its configuration and classes.
        record: what its directory says.
        scores: its scores; None if they could not be computed.
        missing: the reason for that.
    """

    name: str
    run: Run
    record: Record
    scores: Scores | None = None
    missing: str | None = None


def render_page(reports: Sequence[Report]) -> str:
    """Write the page of one run, or of several runs side by side, as HTML without anything outside of it."""
    filters = {
        "percent": format_percent,
        "number": format_number,
        "bytes": format_bytes,
        "duration": format_duration,
        "words": lambda name: name.replace("_", " ").replace("iu", "IU"),
    }
    views = [_view(report) for report in reports]
    return load_template("fcn_jax.inference.report", "page.html.jinja", filters).render(
        views=views, metrics=SUMMARY, comparison=_compare(reports, views) if len(reports) > 1 else None
    )


def format_percent(share: float | None) -> str:
    """Format a share of 0 to 1 in percent; – if there is none."""
    return f"{100 * share:.1f}" if share is not None and math.isfinite(share) else "–"


def format_number(value: float | None) -> str:
    """Format a number with three digits; – if there is none."""
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "–"


def format_duration(seconds: float) -> str:
    """Format a time as hours and minutes, minutes and seconds, or seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


class ClassRow(NamedTuple):
    """A class in the table; shares are 0 to 1 or None."""

    name: str
    colour: str
    iu: float | None
    accuracy: float | None
    boundary: float | None
    pixels: int | None


class TaskView(NamedTuple):
    """What the template shows of a task.

    Attributes:
        name: name of the task; empty if it is the only one.
        metrics: values by the names in `SUMMARY`; empty if the run was never evaluated.
        classes: a row for each class.
        absent: number of classes in neither truth nor prediction.
        matrix: for each true class the shares of the predicted ones, None in the row of an absent class; None if there
            are no scores, or too many classes.
        confusions: (true class, predicted class, share of the true class's pixels), the largest first.
    """

    name: str
    metrics: Mapping[str, float]
    classes: Sequence[ClassRow]
    absent: int
    matrix: Sequence[Sequence[float] | None] | None
    confusions: Sequence[tuple[str, str, float]]


class View(NamedTuple):
    """What the template shows of a run.

    Attributes:
        report: the run.
        metrics: those of the first task, and the loss; empty if the run was never evaluated.
        origin: where the metrics are from.
        tasks: the tasks, at least one.
        charts: of mean IU and loss.
        figures: each figure with its picture.
        configuration: the values by their names.
    """

    report: Report
    metrics: Mapping[str, float]
    origin: str
    tasks: Sequence[TaskView]
    charts: Sequence[Chart]
    figures: Sequence[tuple[Figure, Picture]]
    configuration: Mapping[str, Any]


class Comparison(NamedTuple):
    """What the page of several runs begins with.

    Attributes:
        charts: the lines of all runs.
        class_names: the names of all classes.
        per_class: IU of each run, by class name.
        differences: the values that differ, one for each run, by their names.
    """

    charts: Sequence[Chart]
    class_names: Sequence[str]
    per_class: Mapping[str, Sequence[float | None]]
    differences: Mapping[str, Sequence[str]]


def _view(report: Report) -> View:
    record, run = report.record, report.run
    metrics, origin = _choose_metrics(report)
    figures = report.scores.figures if report.scores else []
    charts = [
        draw_chart("Mean IU on val, %", [("mean IU", _read_percent(record))]),
        draw_chart(
            "Loss, nats", [("train", read_points(record.train, "loss")), ("val", read_points(record.val, "loss"))]
        ),
    ]
    return View(
        report=report,
        metrics=metrics,
        origin=origin,
        tasks=[_view_task(report, metrics, number) for number in range(len(run.tasks))],
        charts=[chart for chart in charts if chart],
        figures=[(figure, embed_drawing(figure.picture, FIGURE_SIDE)) for figure in figures],
        configuration=flatten(to_json({"config": run.config, "options": run.options})),
    )


def _view_task(report: Report, metrics: Mapping[str, Any], number: int) -> TaskView:
    task = report.run.tasks[number]
    matrix, confusions = None, []
    if report.scores:
        matrix, confusions = _normalise(report.scores.evaluation.tasks[number].confusion, task.class_names)
    own = metrics if number == 0 else metrics.get(task.name, {})
    classes = _list_classes(report, number)
    return TaskView(
        name=task.name,
        metrics={name: own[name] for name in SUMMARY if name in own},
        classes=classes,
        absent=sum(row.iu is None for row in classes),
        matrix=matrix if len(task.class_names) <= MATRIX else None,
        confusions=confusions,
    )


def _choose_metrics(report: Report) -> tuple[dict[str, Any], str]:
    """Return the metrics of the scores, or else those of the best evaluation of the training."""
    if scores := report.scores:
        count = scores.evaluation.num_examples
        images = f"{count:,} image{'s' * (count != 1)} of {scores.data} {scores.split}"
        part = "" if count == scores.available else f", evenly spread over all {scores.available:,}"
        return scores.evaluation.summary(), f"step {scores.step:,}, {images}{part}"
    best = report.record.best or {}
    others = [task.name for task in report.run.tasks[1:]]
    metrics = {name: best[name] for name in (*SUMMARY, "loss", *others) if name in best}
    return metrics, f"step {best['step']:,}, as the training logged it" if best else "never evaluated"


def _list_classes(report: Report, number: int) -> list[ClassRow]:
    task, names, palette, _ = report.run.tasks[number]
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette.tolist()]
    empty: list[Any] = [None] * len(names)
    columns = [empty] * 4
    if scores := report.scores:
        _, metrics, confusion = scores.evaluation.tasks[number]
        columns = [metrics.per_class_iu, metrics.per_class_accuracy, scores.boundary_iu[number]]
        columns = [[None if math.isnan(value) else float(value) for value in column] for column in columns]
        columns.append(confusion.sum(axis=1).tolist())
    else:
        best = report.record.best or {}
        line = best.get(task, {}) if number else best
        for place, name in enumerate(PER_CLASS):
            stored = line.get(name)
            if isinstance(stored, list) and len(stored) == len(names):
                columns[place] = [float(value) if is_number(value) else None for value in stored]
    return [ClassRow(*row) for row in zip(names, colours, *columns, strict=True)]


def _normalise(
    confusion: np.ndarray, names: Sequence[str]
) -> tuple[list[list[float] | None], list[tuple[str, str, float]]]:
    """Divide the rows of a confusion matrix by their sums, and list its largest values beside the diagonal."""
    truth = confusion.sum(axis=1)
    shares = confusion / np.maximum(truth, 1)[:, None]
    wrong = np.where(np.eye(len(names), dtype=bool), 0, shares)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    places = [divmod(int(place), len(names)) for place in order]
    rows = [row if count else None for row, count in zip(shares.tolist(), truth, strict=True)]
    return rows, [(names[i], names[j], float(wrong[i, j])) for i, j in places if wrong[i, j] > 0]


def _compare(reports: Sequence[Report], views: Sequence[View]) -> Comparison:
    charts = [
        draw_chart("Mean IU on val, %", [(r.name, _read_percent(r.record)) for r in reports]),
        draw_chart("Loss on val, nats", [(r.name, read_points(r.record.val, "loss")) for r in reports]),
        draw_chart("Loss on train, nats", [(r.name, read_points(r.record.train, "loss")) for r in reports]),
    ]
    scores = [_list_ious(view) for view in views]
    names = list(dict.fromkeys(name for column in scores for name in column))
    return Comparison(
        charts=[chart for chart in charts if chart],
        class_names=names,
        per_class={name: [column.get(name) for column in scores] for name in names},
        differences=compare_runs([(report.run, report.record) for report in reports]),
    )


def _list_ious(view: View) -> dict[str, float | None]:
    """Return the IU of each class by its name, which begins with that of its task for tasks after the first one."""
    rows = [row for task in view.tasks for row in task.classes]
    return dict(zip(name_scores(view.report.run.tasks), [row.iu for row in rows], strict=True))


def _read_percent(record: Record) -> list[tuple[float, float]]:
    return [(step, 100 * value) for step, value in read_points(record.val, "mean_iu")]
