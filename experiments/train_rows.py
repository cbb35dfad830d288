"""Train the rows of an experiment: `python experiments/train_rows.py experiments/NAME --data-dir DIR [flags]`.

`rows.csv` in the folder names the trainings: a row, its preset and its flags. Each one runs once for every seed, in
`runs/NAME/ROW-SEED`, by `fcn-jax train`; one that was stopped goes on. When it is done, its scores are appended to
`results.csv`, with the seconds of the whole training. Rows that are in `results.csv` are not trained again. At last
`report_rows.py` draws the curves and writes the tables. To make rows anew and compare them, name another file by
`--results`; then its table is printed at last.
"""

import csv
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from report_rows import format_scores, read_classes, read_rows, report

from fcn_jax.cli.train import read_flags
from fcn_jax.config import HEADS
from fcn_jax.runtime.files import write_atomically

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import machine

COLUMNS = (
    "row", "seed", "step", "seconds", "machine", "commit", "jax", "mean_iu", "pixel_accuracy", "mean_accuracy",
    "frequency_weighted_iu", "loss", "per_class_iu", "command",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Train the rows of an experiment."""

    folder: tyro.conf.Positional[Path]
    """folder with rows.csv"""
    data_dir: Path | None = None
    """folder of the data set's files, which are only read"""
    rows: tuple[str, ...] = ()
    """names of the rows to train; none: all"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """seeds of the trainings of each row"""
    results: Path | None = None
    """file to append results to; None: results.csv in the folder, whose tables are then written anew"""
    runs: Path = Path("runs")
    """folder of the run directories"""


def main() -> None:
    """Train every row with every seed."""
    options = tyro.cli(Options)
    with (options.folder / "rows.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    unknown = set(options.rows) - set(rows)
    if unknown:
        raise SystemExit(f"unknown rows {', '.join(sorted(unknown))}; choose from {', '.join(rows)}")
    results = options.results or options.folder / "results.csv"
    for seed in options.seeds:
        for name in options.rows or rows:
            if (name, str(seed)) in read_done(results):
                print(f"{name}, seed {seed}: is in {results}; give --results with another file to train it again")
            else:
                train(rows[name], seed, options, results)
    if options.results is None:
        report(options.folder)
    else:
        print(format_scores(read_rows(results), read_classes(options.folder / "classes.csv")), end="")


def read_done(results: Path) -> set[tuple[str, str]]:
    """Read which rows are done, with which seeds; the stages of a row are named ROW/HEAD."""
    if not results.exists():
        return set()
    with results.open() as file:
        return {(row["row"].split("/")[0], row["seed"]) for row in csv.DictReader(file)}


def train(row: dict[str, str], seed: int, options: Options, results: Path) -> None:
    """Train a row with a seed, or go on with it, and append its results.

    Raises:
        SystemExit: the training failed or was stopped.
    """
    run_dir = options.runs / options.folder.name / f"{row['row']}-{seed}"
    flags = [*shlex.split(row["flags"]), "--seed", str(seed)]
    where = [] if options.data_dir is None else ["--data.dir", str(options.data_dir)]
    print(f"{row['row']}, seed {seed}: fcn-jax train {row['preset']} {shlex.join(flags)}", flush=True)
    began = time.time()
    command = [sys.executable, "-m", "fcn_jax", "train", row["preset"], *flags, *where, "--run-dir", str(run_dir)]
    code = call(command)
    seconds = add_seconds(run_dir, time.time() - began)
    _, config, *_ = read_flags([row["preset"], *flags])
    stages = [run_dir / head for head in HEADS[: HEADS.index(config.model.head) + 1]] if config.staged else [run_dir]
    if code or not all(map(is_done, stages)):
        raise SystemExit(f"{row['row']} with seed {seed} is not done, exit status {code}; the same command goes on")
    before = results.read_text() if results.exists() else ""
    columns = before.partition("\n")[0].split(",") if before else COLUMNS  # older files lack some
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    if not before:
        writer.writeheader()
    for stage in stages:
        known = {
            "row": f"{row['row']}/{stage.name}" if config.staged else row["row"],
            "seed": seed,
            "seconds": round(seconds),
            "machine": machine.describe_machine(),
            "commit": read_commit(stage),
            "jax": read_config(stage)["versions"]["jax"],
            "command": f"fcn-jax train {row['preset']} {shlex.join(flags)}",
        }
        for score in read_scores(stage):
            ious = " ".join("" if x is None else f"{x:.4f}" for x in score["per_class_iu"])
            numbers = {name: f"{x:.4f}" for name, x in score.items() if isinstance(x, float)}
            writer.writerow({**score, **numbers, "per_class_iu": ious, **known})
    write_atomically(results, before + text.getvalue())


def call(command: list[str]) -> int:
    """Run a command, pass a request to end (SIGTERM) on to it, and return its exit status when it has ended."""
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def add_seconds(run_dir: Path, seconds: float) -> float:
    """Add to the seconds that a training has taken in all its calls, and return their sum."""
    if not run_dir.is_dir():
        return seconds
    file = run_dir / "seconds.json"
    total = seconds + (json.loads(file.read_text()) if file.exists() else 0.0)
    write_atomically(file, json.dumps(total))
    return total


def read_commit(run_dir: Path) -> str:
    """Read the short hash of the code that a run was last started with; "+" marks code that was not committed.

    A copy without git's folder has "unknown".
    """
    commit = read_config(run_dir)["git"]
    if commit is None:
        return "unknown"
    return commit[:7] + ("+" if commit.endswith("+") else "")


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read what a run stores of its last start: configuration, commit and versions."""
    return json.loads((run_dir / "config.json").read_text())


def read_scores(run_dir: Path) -> list[dict[str, Any]]:
    """Read the evaluations of a run, in the order of their steps; none if the run has not begun."""
    file = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if line["split"] == "val"]


def is_done(run_dir: Path) -> bool:
    """Return whether a run has taken all of its steps."""
    scores = read_scores(run_dir)
    if not scores:
        return False
    config = read_config(run_dir)["config"]
    return scores[-1]["step"] == [config["steps"], *config["extend"]][-1]


if __name__ == "__main__":
    main()
