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
from cycler import cycler
from matplotlib.figure import Figure

from fcn_jax.runtime.files import write_atomically

FREQUENT = 20  # val images that show a class

Rows = dict[str, dict[int, list[dict[str, str]]]]  # row, step -> one line for each seed


def report(folder: Path) -> None:
    """Write `table.md` and `curves.svg` into the folder of an experiment."""
    rows = read_rows(folder / "results.csv")
    classes = read_classes(folder / "classes.csv")
    write_atomically(folder / "table.md", format_scores(rows, classes) + "\n" + format_classes(rows, classes))
    draw_curves(rows, folder / "curves.svg")


def read_rows(file: Path) -> Rows:
    """Read results.csv, the rows in the order of the file and the steps in their order."""
    rows: Rows = defaultdict(lambda: defaultdict(list))
    with file.open() as lines:
        for line in csv.DictReader(lines):
            rows[line["row"]][int(line["step"])].append(line)
    return {name: dict(sorted(steps.items())) for name, steps in rows.items()}


def read_classes(file: Path) -> dict[str, int]:
    """Read the classes of the experiment, each with the number of val images that show it."""
    with file.open() as lines:
        return {line["name"]: int(line["val_images"]) for line in csv.DictReader(lines)}


def format_scores(rows: Rows, classes: dict[str, int]) -> str:
    """Format a table with a line for each row: scores after the last step, in %, as mean and range over the seeds.

    Where a class is rare, a column has the mean over the classes that at least `FREQUENT` val images show.
    """
    frequent = [index for index, count in enumerate(classes.values()) if count >= FREQUENT]
    has_rare = 0 < len(frequent) < len(classes)
    columns = ["row", "steps", "seeds", "mean IU, %", "pixel accuracy, %", "minutes"]
    if has_rare:
        columns.insert(4, f"mean IU of {len(frequent)} frequent classes, %")
    lines = [columns, ["---"] * len(columns)]
    for name, steps in rows.items():
        last = max(steps)
        runs = steps[last]
        values = {column: [100 * float(run[column]) for run in runs] for column in ("mean_iu", "pixel_accuracy")}
        line = [
            name,
            str(last),
            " ".join(sorted((run["seed"] for run in runs), key=int)),
            _format_range(values["mean_iu"]),
        ]
        if has_rare:
            line.append(_format_range([statistics.mean(_read_ious(run, frequent)) for run in runs]))
        minutes = statistics.median(float(run["seconds"]) / 60 for run in runs)
        lines.append([*line, _format_range(values["pixel_accuracy"]), f"{minutes:.0f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_classes(rows: Rows, classes: dict[str, int]) -> str:
    """Format a table with a column for each class: IU after the last step, in %, as mean over the seeds."""
    lines = [["row", *classes], ["---"] * (1 + len(classes))]
    for name, steps in rows.items():
        known = [[x for run in steps[max(steps)] for x in _read_ious(run, [index])] for index in range(len(classes))]
        lines.append([name, *(f"{statistics.mean(values):.0f}" if values else "" for values in known)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw_curves(rows: Rows, file: Path) -> None:
    """Draw the mean IU of every row over the steps: the mean of the seeds, and their range as a band."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    ax = figure.subplots()
    # After ten rows the colours begin again, with another style of line.
    ax.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * matplotlib.rcParams["axes.prop_cycle"])
    for name, steps in rows.items():
        values = [[100 * float(run["mean_iu"]) for run in runs] for runs in steps.values()]
        (line,) = ax.plot(list(steps), [statistics.mean(v) for v in values], marker="o", markersize=3, label=name)
        ax.fill_between(list(steps), list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.15)
    ax.set_xlabel("step")
    ax.set_ylabel("val mean IU, %")
    ax.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    with matplotlib.rc_context({"svg.hashsalt": "rows"}):  # the same ids in every call
        figure.savefig(file, metadata={"Date": None})


def _read_ious(run: dict[str, str], classes: list[int]) -> list[float]:
    """Read the IU of these classes, in %, without those found neither in the truth nor in the prediction."""
    values = run["per_class_iu"].split(" ")
    return [100 * float(values[index]) for index in classes if values[index]]


def _format_range(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    report(Path(sys.argv[1]))
