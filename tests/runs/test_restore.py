"""Restoring a network's variables from a run."""

import shutil
import threading

import jax
import numpy as np
import pytest
from small_runs import CLASSES, NORMED, config

from fcn_jax.config import RunOptions
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.models.build import init_variables
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import Run

MODEL = FCN8s(num_classes=CLASSES, backbone=NORMED)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path, config(), RunOptions(), (Task("", ("sky", "sea", "sand"), np.zeros((3, 3), np.uint8)),), "abc")


@pytest.mark.parametrize(("step", "which"), [(None, ""), (7, " 7")])
def test_a_run_without_a_checkpoint_is_refused(run, step, which):
    with pytest.raises(InputError, match=rf"{run.folder} has no checkpoint{which}; there are: none; train it on"):
        restore_variables(run, MODEL, step)


def test_the_best_is_restored_or_the_one_that_is_asked_for(run, monkeypatch):
    states = {step: init_variables(MODEL, seed=step) for step in (1, 2)}
    with Checkpoints(run.checkpoints) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.3)):
            checkpoints.save(step, {"variables": states[step]})
            checkpoints.note_score(step, score)
    for asked, expected in ((None, 1), (1, 1), (2, 2)):
        variables, step = restore_variables(run, MODEL, asked)
        assert step == expected
        for ours, theirs in zip(jax.tree.leaves(variables), jax.tree.leaves(states[expected]), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="has no checkpoint 5; there are: 1, 2"):
        restore_variables(run, MODEL, 5)

    # A training that goes on removes the best in the moment in which it is read, file by file.
    read = Checkpoints.restore

    def remove_and_read(checkpoints, step, like):
        if step == 1:
            (run.checkpoints / "1" / "sha256.json").unlink()
            shutil.rmtree(run.checkpoints / "1" / "variables")
            threading.Timer(0.3, shutil.rmtree, [run.checkpoints / "1"]).start()
        return read(checkpoints, step, like)

    monkeypatch.setattr(Checkpoints, "restore", remove_and_read)
    assert restore_variables(run, MODEL)[1] == 2
    with pytest.raises(InputError, match="has no checkpoint 1; there are: 2"):
        restore_variables(run, MODEL, 1)
