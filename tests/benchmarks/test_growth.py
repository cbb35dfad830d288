"""How cost grows: the fitted power, the data sets that are written, and the rows that a sweep leaves."""

import itertools
import sys
from pathlib import Path

import growing
import growth
import history
import numpy as np
import pytest
from PIL import Image


class FakeWorker:
    """A worker whose calls take `seconds`, and whose process had this many bytes."""

    def __init__(self, seconds: float, memory: float):
        self.seconds, self.memory = seconds, memory

    def __enter__(self) -> "FakeWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, name: str, calls: int = 1) -> float:
        assert name in ("segment", "step")
        return self.seconds

    def ask(self, name: str) -> float:
        assert name == "memory"
        return self.memory


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_power_of_a_curve_is_found(power):
    sizes = [1, 10, 1000]
    assert growth.fit_power(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_the_power_is_the_least_squares_line_of_the_logarithms():
    sizes, values = [1.0, 2.0, 4.0], [1.0, 3.0, 4.0]
    # The slope of three points at equal distances is that of the line from the first to the last.
    assert growth.fit_power(sizes, values) == pytest.approx(np.log(4.0) / np.log(4.0))


def test_sweeps_record_each_case_and_the_powers(tmp_path, monkeypatch):
    """Ours takes time as the pixels or images, in bytes as their square; the peer the other way round."""

    def start(script: str, function: str, **case: int) -> FakeWorker:
        size = case["height"] * case["width"] / 1000 if "height" in case else case.get("classes", case["batch"])
        return FakeWorker(size**2, 1e9 * size) if function.startswith("pytorch") else FakeWorker(size, 1e9 * size**2)

    monkeypatch.setattr(growth, "start", start)
    file = tmp_path / "history.csv"
    monkeypatch.setattr(sys, "argv", ["growth.py", "pixels", "batch", "classes", "--history", str(file)])
    growth.main()
    rows = history.read(file)
    powers = {(row.task, row.setting): (row.ours, row.peer_value) for row in rows if row.task.startswith("power")}
    titles = ["pixels of an image, whole", "pixels of an image, tiles", "images of a step", "classes of a step"]
    assert set(powers) == set(itertools.product(["power of time", "power of memory"], titles))
    for (task, _), found in powers.items():
        assert found == pytest.approx((1.0, 2.0) if task == "power of time" else (2.0, 1.0))
    cases = {row.setting: row.ratio for row in rows if row.task == "time"}
    assert cases["an image of 500x750, whole"] == pytest.approx(375.0)
    assert cases["a step of 8 x 224²"] == pytest.approx(8.0)
    assert cases["a step of 1 x 224², 1000 classes"] == pytest.approx(1000.0)
    assert {row.rounds for row in rows if row.task == "time"} == {15}


def test_a_data_set_of_any_length_is_written(tmp_path):
    growing.write_examples(str(tmp_path), 1002)
    images, labels = (sorted(Path(tmp_path, kind, "train").iterdir()) for kind in ("images", "labels"))
    assert [file.name for file in images] == [file.name for file in labels]
    assert (len(images), images[-1].name) == (1002, "001001.png")
    assert not images[1000].samefile(images[999])
    with Image.open(images[1001]) as image, Image.open(labels[1001]) as label:
        assert (image.size, image.mode, label.size) == ((32, 32), "RGB", (32, 32))
        assert set(np.unique(label)) == {0, 1, 2}


@pytest.mark.slow
def test_a_data_set_is_built_opened_and_used(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "EXAMPLES", (20, 40))
    file = tmp_path / "history.csv"
    growth.sweep_examples(history.Recorder("growth", True, file), slice(None))
    found = {(row.task, row.setting): row.ours for row in history.read(file)}
    for count in (20, 40):
        assert found["built", f"{count} examples"] > 0
        assert found["batch of a late step", f"{count} examples"] < 60
        assert 0.1 < found["memory of training's input", f"{count} examples"] < 4
    assert ("power of time", "examples, first batch") in found
