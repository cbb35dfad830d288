"""What is read of a run directory, whatever its files hold."""

import json
from pathlib import Path

import pytest
from drawn_reports import draw_run

from fcn_jax.inference.report import record as record_module
from fcn_jax.inference.report.record import find_stages, read_points, read_record


def write_run(folder: Path, stored: dict, lines: list[str]):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return draw_run()._replace(folder=folder)


def test_numbers_sizes_and_origin_are_read(tmp_path):
    lines = [
        {"step": 10, "split": "train", "loss": 2.5},
        {"step": 10, "split": "val", "loss": 2.0, "mean_iu": 0.5, "per_class_iu": [0.5, None]},
        {"step": 20, "split": "val", "loss": 1.0, "mean_iu": 0.25},
    ]
    starts = [{"command": f"fcn-jax train {name}", "machine": name, "time": 1} for name in ("fcn8s", "fcn16s")]
    stored = {"starts": starts, "git": "abc", "versions": {"jax": "1"}, "python": "3.11"}
    run = write_run(tmp_path / "run", stored, list(map(json.dumps, lines)))
    for name, size in (("20/a", 100), ("20/b/c", 50), ("40/a", 7)):
        (run.checkpoints / name).parent.mkdir(parents=True, exist_ok=True)
        (run.checkpoints / name).write_bytes(bytes(size))
    record = read_record(run)
    assert (record.steps, record.checkpoints) == (40, {20: 150, 40: 7})
    assert (record.command, record.machine, record.git) == ("fcn-jax train fcn16s", "fcn16s", "abc")
    assert record.preset == "fcn16s"
    assert record.versions == {"jax": "1", "Python": "3.11"}
    assert record.best["step"] == 10
    assert record.best["per_class_iu"] == [0.5, None]
    assert read_points(record.train, "loss") == [(10, 2.5)]
    assert read_points(record.val, "loss") == [(10, 2), (20, 1)]
    assert 11e6 < record.parameters < 12e6  # ResNet18
    assert record.times is None


@pytest.mark.parametrize("stored", [{}, {"versions": ["jax"], "git": None, "python": None}])
def test_values_of_another_type_are_left_out(tmp_path, stored):
    lines = [
        '{"step": 1, "split": "val", "loss": "<b>", "mean_iu": null, "pixel_accuracy": true}',
        '{"step": "2", "split": "train", "loss": 1}',
        '{"step": 3, "split": ["val"], "loss": 1}',
        '{"step": 4, "split": "train", "loss": 1e999}',
        '{"step": 5, "split": "train", "loss"',
    ]
    record = read_record(write_run(tmp_path / "run", stored, lines))
    assert record.val == [{"step": 1, "split": "val"}]
    assert record.train == [{"step": 4, "split": "train"}]
    assert (record.best, record.command, record.preset, record.git, record.versions) == (None, None, None, None, {})
    assert record.steps == 4
    assert read_points(record.train, "loss") == []


@pytest.mark.parametrize(("command", "preset"), [("python -m fcn_jax train", None), ("python own.py", None)])
def test_a_command_without_a_preset_has_none(tmp_path, command, preset):
    starts = [{"command": command, "machine": "m", "time": 1}]
    assert read_record(write_run(tmp_path / "run", {"starts": starts}, [])).preset == preset


def test_a_checkpoint_that_a_training_removes_meanwhile_is_left_out(tmp_path, monkeypatch):
    def measure(folder):
        if folder.name == "4":
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return 9

    monkeypatch.setattr(record_module, "list_complete", lambda checkpoints: [4, 8])
    monkeypatch.setattr(record_module, "_measure", measure)
    assert read_record(write_run(tmp_path / "run", {}, [])).checkpoints == {8: 9}


def test_a_folder_of_stages_stands_for_them(tmp_path):
    for head in ("fcn8s", "fcn32s"):
        write_run(tmp_path / "staged" / head, {}, [])
    (tmp_path / "staged" / "fcn16s").mkdir()
    assert find_stages(tmp_path / "staged") == [tmp_path / "staged" / "fcn32s", tmp_path / "staged" / "fcn8s"]
    assert find_stages(tmp_path / "staged" / "fcn8s") == [tmp_path / "staged" / "fcn8s"]
    assert find_stages(tmp_path) == [tmp_path]
