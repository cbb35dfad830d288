"""What the README promises about equal bits: what does not change a number of a training."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_arrays import read_arrays
from small_runs import NORMED, folder_run

from fcn_jax.config import AugmentConfig
from fcn_jax.models.fcn import FCN8s
from fcn_jax.training import setup
from fcn_jax.training.loop import train

CONDUCT = {
    "workers": 1,
    "log_every": 1,
    "eval_every": 1,
    "checkpoint_every": 1,
    "keep": 4,
    "eval_batch_size": 16,
    "stuck_after": 0.0,
    "on_divergence": "rewind",
    "on_bad_example": "skip",
}


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(setup, "build", lambda model, classes: FCN8s(num_classes=classes, backbone=NORMED))


def last_train_line(run: Path) -> dict:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: value for name, value in lines[-2].items() if name != "input_wait"}


def test_the_conduct_of_a_run_and_its_place_change_no_bit(tmp_path):
    config, options = folder_run(tmp_path, steps=2, augment=AugmentConfig(crop=32, scale=(0.8, 1.2), colour=0.3))
    runs = {}
    for name, changes in (("once", {"log_every": 2}), ("otherwise", CONDUCT)):
        train(config, dataclasses.replace(options, **changes), tmp_path / name)
        runs[name] = read_arrays(tmp_path / name, 2)
    assert last_train_line(tmp_path / "otherwise") == last_train_line(tmp_path / "once")
    assert runs["otherwise"].keys() == runs["once"].keys()
    for path, array in runs["once"].items():
        np.testing.assert_array_equal(runs["otherwise"][path], array, err_msg=path)

    train(dataclasses.replace(config, seed=1), dataclasses.replace(options, log_every=4), tmp_path / "seed")
    assert last_train_line(tmp_path / "seed") != last_train_line(tmp_path / "once")  # so the comparison can fail
