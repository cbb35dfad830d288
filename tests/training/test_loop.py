"""Whole trainings of a small network: what is refused, where images come from, divergence, resuming and stopping."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoint_arrays import read_arrays
from small_runs import NORMED, folder_data, folder_run

from fcn_jax import cli
from fcn_jax.config import AugmentConfig, Config, OptimConfig, RunOptions
from fcn_jax.data import batches
from fcn_jax.errors import InputError, Stopped
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.checkpoint_files import SCORES, list_complete
from fcn_jax.runs.run_dir import open_run
from fcn_jax.runtime.signals import StopWish
from fcn_jax.training import loop, setup
from fcn_jax.training.loop import train

SMALL = AugmentConfig(crop=32, scale=(0.9, 1.1))


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=NORMED))


def lines(folder: Path) -> list[dict]:
    """What a run computed, whatever it waited for its input."""
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "input_wait"} for line in written]


def test_batches_that_do_not_fit_the_devices_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"batch-size 12 cannot be split over 8 devices.*multiple of 8"):
        train(Config(batch_size=12), RunOptions(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_class_weights_must_fit_the_classes(tmp_path):
    config, options = folder_run(tmp_path, optim=OptimConfig(class_weights=(1.0, 2.0)))
    with pytest.raises(InputError, match="class-weights has 2 values for 3 classes; give one for each of sky, sea"):
        train(config, options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_split_that_is_not_there(tmp_path):
    config, options = folder_run(tmp_path)
    train_on = dataclasses.replace(config, data=dataclasses.replace(config.data, train_split="trainaug"))
    with pytest.raises(InputError, match=r"no split 'trainaug' here; it has train, val: .* --data.train-split$"):
        train(train_on, options, tmp_path / "run")
    (tmp_path / "images/val").rename(tmp_path / "images/valid")
    (tmp_path / "labels/val").rename(tmp_path / "labels/valid")
    with pytest.raises(
        InputError, match=r"no split 'val' here; it has train, valid: .*--data.val-split, .*hold-out 0.1"
    ):
        train(config, options, tmp_path / "run")
    for kind in ("images", "labels"):
        shutil.rmtree(tmp_path / kind / "valid")
    with pytest.raises(InputError, match=r"no split 'val' here; it has train: set a tenth of the training split apart"):
        train(config, options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_where_decoded_images_are_kept_changes_nothing_and_may_change_on_resume(tmp_path):
    config, options = folder_run(tmp_path, steps=2, eval_every=1, augment=SMALL)

    def run(decoded: str, folder: Path) -> list[dict]:
        data = dataclasses.replace(options.data, decoded=decoded)
        train(config, dataclasses.replace(options, data=data), folder)
        return lines(folder)

    expected = run("never", tmp_path / "never")
    assert not list((tmp_path / "cache").rglob("*.uint8"))
    assert run("device", tmp_path / "device") == expected
    written = [json.loads(line) for line in (tmp_path / "device" / "metrics.jsonl").read_text().splitlines()]
    shares = [line["input_wait"] for line in written if line["split"] == "train"]
    assert len(shares) == 2
    assert all(0 <= share <= 1 for share in shares)

    shutil.rmtree(tmp_path / "never" / "checkpoints" / "2")
    assert run("disk", tmp_path / "never") == expected
    assert len(list((tmp_path / "cache").rglob("train.uint8"))) == 1


def test_a_split_that_does_not_fit_on_the_devices_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_read_free_memory", lambda device: 1.0)
    config, options = folder_run(tmp_path)
    data = dataclasses.replace(options.data, decoded="device")
    with pytest.raises(InputError, match=r"1 decoded images on canvases of .* give --data.decoded disk, or never"):
        train(config, dataclasses.replace(options, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "logged"),
    [
        pytest.param(("--log-every", "1"), [1], id="seen when logged", marks=pytest.mark.slow),
        pytest.param(("--log-every", "100", "--checkpoint-every", "2"), [], id="seen before saving"),
    ],
)
def test_divergence_ends_the_training_with_1_and_nothing_of_it_is_kept(tmp_path, capsys, flags, logged):
    data = ("--data.name", "folder", "--data.dir", str(folder_data(tmp_path)), "--data.cache", str(tmp_path / "cache"))
    flags += ("--augment.crop", "32", "--steps", "5", "--optim.learning-rate", "1e38")
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "fcn8s", *data, *flags, "--run-dir", str(tmp_path / "run")])
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "fcn-jax: loss nan and gradient norm nan at step 2: training has diverged. Step 2 takes one. "
    )
    assert last.endswith("; resnet34 is steadier on folder with --optim.learning-rate 0.05")
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert [line["step"] for line in (lines(tmp_path / "run") if metrics.exists() else [])] == logged
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path):
    config, options = folder_run(tmp_path, steps=4, eval_every=2, augment=SMALL)
    whole = train(config, options, tmp_path / "whole")
    train(config, options, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
    said: list[str] = []
    resumed = train(config, options, tmp_path / "resumed", said.append)
    assert any("goes on after step 2 of 4" in line for line in said)
    assert lines(tmp_path / "resumed") == lines(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.confusion, whole.confusion)
    with Checkpoints(tmp_path / "resumed" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest() == 4
    said.clear()
    assert train(config, options, tmp_path / "resumed", said.append) is None
    assert said == [f"{tmp_path / 'resumed'} has all of its 4 steps; nothing to do"]


def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_in(tmp_path, monkeypatch):
    config, options = folder_run(tmp_path, steps=4, eval_every=4, augment=SMALL)
    asked = iter([False, False, True])  # before the first step, and after each

    monkeypatch.setattr(
        loop, "catch_stop_signals", lambda: contextlib.nullcontext(StopWish(lambda step: next(asked), lambda: False))
    )
    with pytest.raises(Stopped, match=r"^stopped after step 2, which is saved; the same command goes on from there$"):
        train(config, options, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2]


@pytest.mark.slow
@pytest.mark.parametrize("stopped_at", [2, 4])
def test_an_evaluation_that_is_stopped_costs_no_step_and_is_made_up_for(tmp_path, monkeypatch, stopped_at):
    config, options = folder_run(tmp_path, steps=4, eval_every=2, augment=SMALL)
    whole = train(config, options, tmp_path / "whole")
    with monkeypatch.context() as patch:
        asked = iter([stopped_at == 2, True])  # asked once in each evaluation, since val has one image
        wish = StopWish(lambda step: False, lambda: next(asked))
        patch.setattr(loop, "catch_stop_signals", lambda: contextlib.nullcontext(wish))
        with pytest.raises(
            Stopped, match=rf"^stopped in the evaluation of step {stopped_at}, which is saved; the same"
        ):
            train(config, options, tmp_path / "stopped")
    assert [(line["step"], line["split"]) for line in lines(tmp_path / "stopped")][-1] == (stopped_at, "train")
    said: list[str] = []
    resumed = train(config, options, tmp_path / "stopped", said.append)
    assert any(f"goes on after step {stopped_at} of 4" in line for line in said)
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.confusion, whole.confusion)
    scores = [(tmp_path / run / "checkpoints" / SCORES).read_text() for run in ("stopped", "whole")]
    assert scores[0] == scores[1]
    assert train(config, options, tmp_path / "stopped") is None


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(tmp_path, capsys):
    config, options = folder_run(tmp_path, steps=4, eval_every=1, augment=SMALL)
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    train(config, dataclasses.replace(options, keep=4), run)
    before = lines(run)
    flipped = checkpoints / "4" / "variables" / "_METADATA"
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    (checkpoints / "3" / "opt_state" / "manifest.ocdbt").unlink()
    (checkpoints / "99").mkdir()  # of something else
    capsys.readouterr()
    said: list[str] = []
    train(config, options, run, said.append)
    assert any("goes on after step 2 of 4" in line for line in said)
    assert lines(run) == before
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    for line, (step, damage) in zip(
        warnings,
        [
            (99, "it is not one, or not whole"),
            (4, "variables/_METADATA is not what was written"),
            (3, "opt_state/manifest.ocdbt is missing"),
        ],
        strict=True,
    ):
        assert line.startswith(f"warning: checkpoint {step} is damaged: {damage}; it is moved to {run}/damaged/{step}-")
        assert line.endswith(", and step 2 is used")
    assert sorted(folder.name.split("-")[0] for folder in (run / "damaged").iterdir()) == ["3", "4", "99"]


@pytest.mark.slow
def test_a_training_ends_before_its_next_save_when_another_one_has_started(tmp_path):
    config, options = folder_run(tmp_path, steps=4, eval_every=2, augment=SMALL)
    run = tmp_path / "run"

    def start_another(line: str) -> None:
        if line.startswith(f"{run}: 4 steps"):
            stored = json.loads((run / "config.json").read_text())
            stored["starts"].append(stored["starts"][-1] | {"id": "another"})
            (run / "config.json").write_text(json.dumps(stored))

    with pytest.raises(InputError, match=rf"another training has started in {run} since, on .*, so this one ends"):
        train(config, options, run, start_another)
    assert list_complete(run / "checkpoints") == []
    train(config, options, run)
    assert list_complete(run / "checkpoints") == [2, 4]


def test_a_run_without_an_intact_checkpoint_is_left_as_it_is(tmp_path):
    config, options = folder_run(tmp_path, steps=1, eval_every=1, augment=SMALL)
    train(config, options, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "1"
    (checkpoint / "variables" / "_METADATA").unlink()
    with pytest.raises(
        InputError, match=r"no checkpoint in .* is intact:\n  1: variables/_METADATA is missing\nrestore"
    ):
        train(config, options, tmp_path / "run")
    assert checkpoint.is_dir()


def test_a_run_of_no_steps_scores_what_it_starts_from(tmp_path):
    config, options = folder_run(tmp_path, steps=0, augment=SMALL)
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\nfoam\n")
    said: list[str] = []
    evaluation = train(config, options, tmp_path / "run", said.append)
    assert said[0].startswith("warning: split train: the class foam: in no image; if the masks have other values")
    assert [(line["step"], line["split"]) for line in lines(tmp_path / "run")] == [(0, "val")]
    assert lines(tmp_path / "run")[0]["mean_iu"] == evaluation.metrics.mean_iu
    # Scores start at zero: every class is as likely.
    assert evaluation.loss == pytest.approx(np.log(4), rel=1e-5)
    said.clear()
    assert train(config, options, tmp_path / "run", said.append) is None
    assert said == [f"{tmp_path / 'run'} has all of its 0 steps; nothing to do"]


@pytest.mark.slow
def test_an_extended_run_equals_one_that_was_to_be_as_long_from_its_start_bit_for_bit(tmp_path, monkeypatch):
    short, options = folder_run(tmp_path, steps=2, eval_every=2, keep=1, augment=SMALL)
    config, run = dataclasses.replace(short, extend=(5,)), tmp_path / "run"
    expected = train(config, options, tmp_path / "whole")

    first = train(short, options, run)
    assert [line["step"] for line in lines(run)] == [1, 2, 2]
    with monkeypatch.context() as killed:
        killed.setattr(loop, "take_steps", None)  # after config.json is written, and before the first step
        with pytest.raises(TypeError):
            train(config, options, run)
    assert open_run(run).config.ends == (2, 5)
    said: list[str] = []
    extended = train(config, options, run, said.append)
    begins, extension = said[-1].splitlines()
    assert begins == f"{run}: goes on after step 2 of 5"
    assert extension.endswith("so the learning rate changes from 0.0107 to 0.0126 after step 2")

    assert lines(run) == lines(tmp_path / "whole")
    np.testing.assert_array_equal(extended.confusion, expected.confusion)
    arrays, others = read_arrays(run, 5), read_arrays(tmp_path / "whole", 5)
    assert arrays.keys() == others.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
    scores = {2: first.metrics.mean_iu, 5: extended.metrics.mean_iu}
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        assert scores[checkpoints.best()] == max(scores.values())
        assert checkpoints.steps() == sorted({checkpoints.best(), 5})

    before = (run / "config.json").read_bytes()
    with pytest.raises(
        InputError, match="has taken 5 steps, and these flags end at step 2; give the --steps and --extend"
    ):
        train(short, options, run)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_another_process_has_trained_meanwhile_is_refused(tmp_path, monkeypatch):
    config, options = folder_run(tmp_path, steps=2, augment=SMALL)
    train(config, options, tmp_path / "run")
    monkeypatch.setattr(setup, "find_latest_step", lambda folder: None)
    with pytest.raises(InputError, match="another process has trained this run meanwhile"):
        train(config, options, tmp_path / "run")
