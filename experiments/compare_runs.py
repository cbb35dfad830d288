"""Draw the predictions of several runs side by side: `python experiments/compare_runs.py RUN RUN ... --out FILE`.

The runs have one data set; the examples are the first ones of its val split. Each run is its best checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fcn_jax.data.dataset import prepare_configured
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.inference.visualize import colourise
from fcn_jax.runs.run_dir import open_run


@dataclass(frozen=True)
class Options:
    """Draw the predictions of several runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run directories"""
    out: Path
    """PNG or SVG file to write"""
    names: tuple[str, ...] = ()
    """headings of the runs; none: the names of their folders"""
    first: int = 0
    """number of the first example to show"""
    count: int = 4
    """number of examples"""


def main() -> None:
    """Draw the picture."""
    options = tyro.cli(Options)
    runs = [open_run(folder) for folder in options.runs]
    data = runs[0].options.data
    split = prepare_configured(runs[0].config.data, data).source(data.val_split or "val")
    examples = [split[options.first + index] for index in range(options.count)]
    columns = [[example.image for example in examples], [colourise(e.label, runs[0].palette) for e in examples]]
    for folder in options.runs:
        segment = Segmenter.from_run(folder)
        columns.append([colourise(segment(example.image), segment.palette) for example in examples])
    headings = ["image", "truth", *(options.names or [folder.name for folder in options.runs])]

    height, width = examples[0].label.shape
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * options.count * height / width + 0.8), layout="constrained")
    axes = figure.subplots(options.count, len(columns), squeeze=False)
    for column, heading, pictures in zip(axes.T, headings, columns, strict=True):
        column[0].set_title(heading)
        for ax, picture in zip(column, pictures, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set_axis_off()
    legend = [
        Patch(color=colour / 255, label=name) for colour, name in zip(runs[0].palette, runs[0].class_names, strict=True)
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 7), frameon=False)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
