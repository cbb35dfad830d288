"""What the READMEs of exported and of published networks say of a run: its title, classes, scores and training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fcn_jax.config import ModelConfig
from fcn_jax.data.tasks import count_classes
from fcn_jax.inference.metrics import SUMMARY
from fcn_jax.runs.run_dir import Run

LICENCE = "- Licence: that of the data and of the weights at the start apply; name yours here before you publish it."


def list_colours(palette: UInt8[np.ndarray, "classes 3"]) -> list[str]:
    """Return the colours of the classes as #rrggbb."""
    return ["#" + bytes(colour).hex() for colour in palette]


def describe_counts(run: Run) -> str:
    """Describe the number of classes of each task."""
    return " and ".join(map(str, count_classes(run.tasks)))


def list_title(run: Run) -> list[str]:
    """Return the lines of a card's heading."""
    return [f"# {run.config.model.head} on {run.config.model.backbone}, trained on {run.config.data.name}", ""]


def list_classes(run: Run) -> list[str]:
    """Return the lines of a card on the classes."""
    lines = ["", "## Classes"]
    for task in run.tasks:
        rows = enumerate(zip(task.class_names, list_colours(task.palette), strict=True))
        lines += ["", f"### {task.name.capitalize()} task"] if task.name else []
        lines += ["", "| index | name | colour |", "| --- | --- | --- |"]
        lines += [f"| {i} | {_escape(name)} | `{colour}` |" for i, (name, colour) in rows]
    return lines


def _escape(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def list_scores(run: Run, step: int, scores: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a card on the scores.

    Args:
        run: the run.
        step: the step of the checkpoint.
        scores: the line of `metrics.jsonl` with its scores on val; None: it was not scored.
    """
    lines = ["", "## Scores", ""]
    if scores is None:
        return [*lines, f"The checkpoint of step {step} was not scored in its training."]
    heads = [f"{task.name}, %".lstrip(", ") for task in run.tasks]
    lines += [f"| on {run.options.data.val_split or 'val'} | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    parts = [scores, *(scores[task.name] for task in run.tasks[1:])]
    for name in SUMMARY:
        cells = ["-" if part[name] is None else f"{100 * part[name]:.2f}" for part in parts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def name_weights(model: ModelConfig) -> str | None:
    """Name the weights that a network started from, by their files or runs; None: from scratch."""
    return " and ".join(place.name for place in model.start_places) or (model.weights and Path(model.weights).name)


def list_training(run: Run) -> list[str]:
    """Return the lines of a card on the training."""
    data = run.config.data
    return [
        "",
        "## Training",
        "",
        f"- Data: {data.name}, split {data.train_split}; names and sizes of its files have the hash `{run.contents}`.",
        f"- Weights at the start: {name_weights(run.config.model) or 'none, from scratch'}.",
        f"- Seed {run.config.seed}, {run.config.ends[-1]} steps of {run.config.batch_size} images.",
    ]
