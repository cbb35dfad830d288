"""Reports of runs that were never trained, with names that are not harmless in a page."""

from pathlib import Path

import numpy as np

from fcn_jax.config import Config, DataOptions, ModelConfig, RunOptions
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.inference.evaluate import Evaluation, TaskScore
from fcn_jax.inference.explain.figure import Figure
from fcn_jax.inference.metrics import compute_metrics
from fcn_jax.inference.report.calibration import BINS, Bins, calibrate
from fcn_jax.inference.report.examples import Shown
from fcn_jax.inference.report.page import Report
from fcn_jax.inference.report.pictures import draw_errors, embed_drawing, embed_photograph
from fcn_jax.inference.report.record import Record
from fcn_jax.inference.report.score import Scores
from fcn_jax.inference.report.times import Times
from fcn_jax.inference.visualize import colourise
from fcn_jax.runs.run_dir import Run

HOSTILE = '<script>alert("name")</script>'
NAMES = ("sky", HOSTILE, 'sea" onload="alert(1)', "never there", "a_rather_long_name_of_a_class_without_any_space")
CONFUSION = np.array(
    [[900, 50, 50, 0, 0], [100, 100, 0, 0, 0], [1, 2, 297, 0, 0], [0, 0, 0, 0, 0], [10, 0, 30, 0, 0]], np.int64
)

TASK = Task("", NAMES, palette(len(NAMES)))


def draw_run(names: tuple[str, ...] = NAMES, **changes) -> Run:
    config = fill_config(Config(model=ModelConfig(backbone="resnet18"), steps=40, **changes))
    options = fill_options(RunOptions(data=DataOptions(dir=Path("<b>place</b>"))), config)
    return Run(Path("run"), config, options, (Task("", names, palette(len(names))),), "abc123")


def draw_record(**changes) -> Record:
    def val(step: int, mean_iu: float) -> dict:
        metrics = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "frequency_weighted_iu"), 0.5)
        return {"step": step, "split": "val", "loss": 1.5, "mean_iu": mean_iu, **metrics}

    record = Record(
        train=[{"step": step, "split": "train", "loss": 3 / step} for step in (10, 20, 30)],
        val=[val(15, 0.25), val(30, 0.375), {"step": 31, "split": "val", "pixel_accuracy": 0.5}],
        steps=31,
        command="python -m fcn_jax train fcn8s --data.dir '<i>'",
        machine="a <fast> machine",
        versions={"jax": "1.2.3", "Python": HOSTILE},
        git="0123abcd+",
        times=Times(0.5, 4000.0),
        parameters=12_345_678,
        checkpoints={15: 90_000_000, 30: 90_000_000},
    )
    return record._replace(**changes)


def draw_scores(side: int = 24) -> Scores:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (side, side + 8, 3), np.uint8)
    label = generator.integers(0, 3, (side, side + 8)).astype(np.uint8)
    label[:3] = 255
    prediction = np.where(generator.random(label.shape) < 0.3, np.uint8(1), label % 5)
    colours = palette(len(NAMES))
    shown = Shown(
        HOSTILE,
        0.625,
        embed_photograph(image),
        embed_drawing(colourise(label, colours)),
        embed_drawing(colourise(prediction, colours)),
        embed_drawing(draw_errors(label, prediction)),
    )
    bins = Bins(np.arange(BINS), np.arange(BINS) // 2, np.arange(BINS) * (np.arange(BINS) + 0.5) / BINS)
    return Scores(
        step=30,
        data="shapes",
        split="val",
        available=40,
        same_data=False,
        evaluation=Evaluation(0.75, (TaskScore(TASK, compute_metrics(CONFUSION), CONFUSION),), 10, 2.0, 1),
        boundary_iu=(np.array([0.5, 0.25, 0.75, np.nan, 0.0]),),
        calibration=calibrate([bins]),
        examples={"best": [shown], "median": [], "worst": [shown._replace(name="w")]},
        figures=[Figure("Field <of> view", "It is round.", "A round spot", np.zeros((20, 30, 3), np.uint8))],
        device="1 × cpu",
    )


def draw_report(name: str = "first <run>", **changes) -> Report:
    return Report(name, draw_run(), draw_record(), draw_scores())._replace(**changes)
