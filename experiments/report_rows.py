"""Draw the curves and write the tables of an experiment: `python experiments/report_rows.py experiments/NAME`.

They are made from `results.csv` alone. A row's result is its score after the last step, so nothing is chosen by its
score.
"""

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from fcn_jax.runtime.files import write_atomically

Rows = dict[str, dict[int, list[dict[str, str]]]]  # row, step -> one line for each seed


def report(folder: Path) -> None:
    """Write `table.md` and `curves.svg` into the folder of an experiment."""
    rows = read_rows(folder / "results.csv")
    write_atomically(folder / "table.md", format_scores(rows) + "\n" + format_classes(folder, rows))
    draw_curves(rows, folder / "curves.svg")


def read_rows(file: Path) -> Rows:
    """Read results.csv, the rows in the order of the file and the steps in their order."""
    rows: Rows = defaultdict(lambda: defaultdict(list))
    with file.open() as lines:
        for line in csv.DictReader(lines):
            rows[line["row"]][int(line["step"])].append(line)
    return {name: dict(sorted(steps.items())) for name, steps in rows.items()}


def format_scores(rows: Rows) -> str:
    """Format a table with a line for each row: scores after the last step, in %, as mean and range over the seeds."""
    lines = [
        "| row | steps | seeds | mean IU, % | pixel accuracy, % | minutes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, steps in rows.items():
        last = max(steps)
        runs = steps[last]
        seeds = " ".join(run["seed"] for run in runs)
        minutes = [float(run["seconds"]) / 60 for run in runs]
        scores = [_format_range([100 * float(run[column]) for run in runs]) for column in ("mean_iu", "pixel_accuracy")]
        lines.append(f"| {name} | {last} | {seeds} | {scores[0]} | {scores[1]} | {statistics.median(minutes):.0f} |")
    return "\n".join(lines) + "\n"


def format_classes(folder: Path, rows: Rows) -> str:
    """Format a table with a column for each class: IU after the last step, in %, as mean over the seeds."""
    names = (folder / "classes.txt").read_text().split()
    lines = [f"| row | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for name, steps in rows.items():
        runs = [run["per_class_iu"].split(" ") for run in steps[max(steps)]]
        means = []
        for values in zip(*runs, strict=True):
            known = [100 * float(value) for value in values if value]
            means.append(f"{statistics.mean(known):.0f}" if known else "")
        lines.append(f"| {name} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def draw_curves(rows: Rows, file: Path) -> None:
    """Draw the mean IU of every row over the steps: the mean of the seeds, and their range as a band."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for name, steps in rows.items():
        values = [[100 * float(run["mean_iu"]) for run in runs] for runs in steps.values()]
        (line,) = ax.plot(list(steps), [statistics.mean(v) for v in values], marker="o", markersize=3, label=name)
        ax.fill_between(list(steps), list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.15)
    ax.set_xlabel("step")
    ax.set_ylabel("val mean IU, %")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "rows"}):  # the same ids in every call
        figure.savefig(file, metadata={"Date": None})


def _format_range(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    report(Path(sys.argv[1]))
