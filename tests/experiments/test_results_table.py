"""experiments/results_table.py: the table of a page is made from metrics.json files."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "results_table.py"
PAGE = "# Title\n\n<!-- table: published -->\nold\n<!-- end -->\n\nThe end.\n"


def write(folder: Path, **changes: object) -> Path:
    metrics = {
        "network": "fcn8s on vgg16", "data": "camvid", "step": 90, "seed": 1, "mean_iu": 0.65432,
        "pixel_accuracy": 0.9, "seconds": 330, "machine": "a GPU", "commands": ["fcn-jax train x"], "weights": None,
    }  # fmt: skip
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return folder


def run(*words: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_table_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    unscored = {"mean_iu": None, "pixel_accuracy": None, "seconds": None, "machine": None, "commands": []}
    folders = [
        write(tmp_path / "a"),
        write(tmp_path / "b", mean_iu=0.7, weights="hed.h5", commands=["one --x 'a|b'", "two"]),
        write(tmp_path / "c", data="aerial", **unscored),
    ]
    for _ in range(2):  # writing it again changes nothing
        done = run(page, *folders)
        assert done.returncode == 0, done.stderr
        assert page.read_text().splitlines() == [
            "# Title",
            "",
            "<!-- table: published -->",
            "| data | network | mean IU, % | pixel accuracy, % | steps | seed | minutes | machine | command |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            "| aerial | fcn8s on vgg16, from scratch |  |  | 90 | 1 |  |  |  |",
            "| camvid | fcn8s on vgg16, from hed.h5 | 70.0 | 90.0 | 90 | 1 | 6 | a GPU | `one --x 'a&#124;b'`; `two` |",
            "| camvid | fcn8s on vgg16, from scratch | 65.4 | 90.0 | 90 | 1 | 6 | a GPU | `fcn-jax train x` |",
            "<!-- end -->",
            "",
            "The end.",
        ]


def test_a_page_without_a_place_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no place\n")
    done = run(page, write(tmp_path / "a"))
    assert done.returncode == 1
    assert "must have the lines <!-- table: published -->" in done.stderr
    assert page.read_text() == "no place\n"
