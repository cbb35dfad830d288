"""Table and plots of a study, made from results.csv alone."""

import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from response import save_figure
from training import Row, read_rows

from fcn_jax.runtime.files import write_atomically


def write_report(study: str, out: Path) -> None:
    """Write STUDY.md, and STUDY_curves and STUDY_final as PNG and SVG."""
    rows = [row for row in read_rows(out / "results.csv") if row["study"] == study]
    write_atomically(out / f"{study}.md", format_table(rows))
    draw_curves(rows, out / f"{study}_curves")
    draw_final(rows, out / f"{study}_final")


def select_last(rows: list[Row]) -> dict[str, list[Row]]:
    """Select the last row of each run, by variant."""
    last = max(int(row["step"]) for row in rows)
    variants = dict.fromkeys(row["variant"] for row in rows)
    return {name: [r for r in rows if r["variant"] == name and int(r["step"]) == last] for name in variants}


def format_table(rows: list[Row]) -> str:
    """Format mean and standard deviation over the seeds as a Markdown table, the highest mean IU first."""
    text = [
        "| variant | seeds | val mean IU, % | pixel accuracy, % | val loss | checkerboard | minutes a run |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    runs = select_last(rows)
    for name in sorted(runs, key=lambda name: -np.mean(_read_column(runs[name], "mean_iu"))):
        cells = [
            name,
            f"{len(runs[name])}",
            _format_spread(_read_column(runs[name], "mean_iu"), 100, 1),
            _format_spread(_read_column(runs[name], "pixel_accuracy"), 100, 1),
            _format_spread(_read_column(runs[name], "val_loss"), 1, 3),
            _format_spread(_read_column(runs[name], "checkerboard"), 1, 2),
            f"{np.mean(_read_column(runs[name], 'seconds')) / 60:.1f}",
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def draw_curves(rows: list[Row], stem: Path) -> None:
    """Draw mean IU against steps: the mean over the seeds, and their range."""
    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    for index, name in enumerate(select_last(rows)):
        mine = [row for row in rows if row["variant"] == name]
        steps = sorted({int(row["step"]) for row in mine})
        values = [_read_column([row for row in mine if int(row["step"]) == step], "mean_iu") for step in steps]
        colour, line = f"C{index % 10}", "-" if index < 10 else "--"
        means = [100 * np.mean(v) for v in values]
        ax.plot(steps, means, marker="o", markersize=3, label=name, color=colour, linestyle=line)
        low, high = ([100 * f(v) for v in values] for f in (min, max))
        ax.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.set_xlabel("step")
    ax.set_ylabel("val mean IU, %")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, ncols=2)
    save_figure(figure, stem)


def draw_final(rows: list[Row], stem: Path) -> None:
    """Draw the last score and the checkerboard energy of every run as dots, and their means as bars."""
    runs = select_last(rows)
    names = sorted(runs, key=lambda name: np.mean(_read_column(runs[name], "mean_iu")))
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.9 + 0.32 * len(names)), sharey=True, layout="constrained")
    panels = (("mean_iu", 100, "val mean IU, %"), ("checkerboard", 1, "checkerboard energy of the logits"))
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        for place, name in enumerate(names):
            values = [scale * value for value in _read_column(runs[name], column)]
            ax.plot(np.mean(values), place, "|", color="black", markersize=14)
            ax.plot(values, [place] * len(values), "o", color="C0", alpha=0.7, markersize=5)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    save_figure(figure, stem)


def _read_column(rows: list[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def _format_spread(values: list[float], scale: float, digits: int) -> str:
    mean = f"{scale * np.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
