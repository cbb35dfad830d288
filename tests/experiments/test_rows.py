"""experiments/train_rows.py and report_rows.py: rows are trained once, and the tables are those of results.csv."""

import csv
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL, Place, draw_folder_data, read_metrics
from PIL import Image

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

import report_rows  # noqa: E402
from train_rows import COLUMNS  # noqa: E402

CLASSES = "name,val_images\ncat,50\nboat,3\ndog,20\n"


def write_results(folder: Path, lines: list[dict[str, object]]) -> None:
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def line(row: str, seed: int, step: int, mean_iu: float, per_class_iu: str, seconds: int = 600) -> dict[str, object]:
    return {
        "row": row, "seed": seed, "step": step, "seconds": seconds, "mean_iu": mean_iu, "pixel_accuracy": 0.8,
        "per_class_iu": per_class_iu,
    }  # fmt: skip


def test_tables_have_the_last_step_and_the_range_of_the_seeds(tmp_path):
    (tmp_path / "classes.csv").write_text(CLASSES)
    results = [
        line("a", 0, 10, 0.9, "0.9 0.9 0.9"),  # better than the last step, and not its result
        line("a", 0, 20, 0.5, "0.6 0.3 0.4", 600),
        line("a", 1, 10, 0.1, "0.1 0.1 0.1"),
        line("a", 1, 20, 0.4, "0.8  0.2", 1200),  # no boat in truth or prediction
        line("b", 0, 5, 0.25, "0.5  0.25", 60),
    ]
    write_results(tmp_path, results)
    report_rows.report(tmp_path)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == (
        "| row | steps | seeds | mean IU, % | mean IU of 2 frequent classes, % | pixel accuracy, % | minutes |"
    )
    assert table[2] == "| a | 20 | 0 1 | 45.0 (40.0 to 50.0) | 50.0 (50.0 to 50.0) | 80.0 (80.0 to 80.0) | 15 |"
    assert table[3] == "| b | 5 | 0 | 25.0 | 37.5 | 80.0 | 1 |"
    assert table[5] == "| row | cat | boat | dog |"
    assert table[7:] == ["| a | 70 | 30 | 30 |", "| b | 50 |  | 25 |"]
    curves = (tmp_path / "curves.svg").read_bytes()
    assert b"<svg" in curves
    report_rows.report(tmp_path)
    assert (tmp_path / "curves.svg").read_bytes() == curves


@pytest.mark.parametrize("name", ["camvid", "shapes", "voc_part"])
def test_the_tables_of_an_experiment_are_made_from_its_results(name, tmp_path):
    folder = EXPERIMENTS / name
    if not (folder / "results.csv").exists():
        pytest.skip(f"experiments/{name} has no results yet")
    for file in ("classes.csv", "results.csv"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    report_rows.report(tmp_path)
    assert (folder / "table.md").read_text() == (tmp_path / "table.md").read_text()
    with (folder / "rows.csv").open() as file:
        known = {row["row"] for row in csv.DictReader(file)}
    assert {row.split("/")[0] for row in report_rows.read_rows(folder / "results.csv")} <= known


def test_a_training_ends_itself_when_the_script_is_to_end():
    """A training saves its state when it gets SIGTERM; whoever ends the script alone must reach it too."""
    training = (
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print('began', flush=True); signal.pause()"
    )
    script = "import sys, train_rows; print('ended with', train_rows.call([sys.executable, '-c', sys.argv[1]]))"
    with subprocess.Popen(
        [sys.executable, "-c", script, training], cwd=EXPERIMENTS, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "began\n"
        process.terminate()
        assert process.stdout.read() == "ended with 75\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_rows_are_trained_once_and_a_stage_is_a_row(tmp_path):
    place = Place(tmp_path)
    draw_folder_data(tmp_path / "data")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "classes.csv").write_text("name,val_images\nground,3\nthing,3\n")
    flags = f"--data.name folder {SMALL}"
    (tmp_path / "toy" / "rows.csv").write_text(
        f"row,preset,flags\nplain,fcn32s,{flags}\nstaged,fcn16s,{flags} --staged --steps 5\n"
    )

    def call(script: str, *words: str) -> str:
        command = [sys.executable, str(EXPERIMENTS / script), *words]
        process = subprocess.run(
            command, cwd=tmp_path, env=place.environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    words = ("toy", "--data-dir", "data", "--seeds", "0")
    assert "plain, seed 0: fcn-jax train fcn32s" in call("train_rows.py", *words)
    rows = report_rows.read_rows(tmp_path / "toy" / "results.csv")
    assert {name: list(steps) for name, steps in rows.items()} == {
        "plain": [5, 10], "staged/fcn16s": [5], "staged/fcn32s": [5]
    }  # fmt: skip
    last = read_metrics(tmp_path / "runs" / "toy" / "plain-0")[-1]
    assert float(rows["plain"][10][0]["mean_iu"]) == pytest.approx(last["mean_iu"], abs=1e-4)
    assert float(rows["plain"][10][0]["seconds"]) > 1
    assert rows["plain"][10][0]["jax"] == importlib.metadata.version("jax")
    assert "fcn-jax train" not in call("train_rows.py", *words)
    tables = (tmp_path / "toy" / "table.md").read_text()
    anew = call("train_rows.py", *words, "--rows", "plain", "--results", "mine.csv")  # the run is there, and is done
    assert "plain, seed 0: fcn-jax train fcn32s" in anew
    assert next(line for line in tables.splitlines() if line.startswith("| plain |"))[:40] in anew
    assert report_rows.read_rows(tmp_path / "mine.csv")["plain"][10][0]["mean_iu"] == rows["plain"][10][0]["mean_iu"]
    assert (tmp_path / "toy" / "table.md").read_text() == tables

    call("compare_runs.py", "runs/toy/plain-0", "runs/toy/staged-0/fcn16s", "--out", "picture.png", "--count", "2")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > picture.height > 100
