"""What of a data set a run is scored on."""

import dataclasses
from pathlib import Path

import pytest

from fcn_jax.config import Config, InputConfig, ModelConfig, RunOptions
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.inputs import COLOUR
from fcn_jax.data.labels import palette
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.runs.other_data import select_tasks
from fcn_jax.runs.run_dir import Run

SEMANTIC, GEOMETRIC = Task("", ("sky", "tree"), palette(2)), Task("geometric", ("far", "near"), palette(2))
DATA = Dataset("folder", (SEMANTIC, GEOMETRIC), {}, (9, 9), Path("records"), "hash", lambda split: [], inputs=(COLOUR,))


def run_on(given: InputConfig | None = None, *tasks: Task) -> Run:
    return Run(Path("runs/a"), Config(model=ModelConfig(input=given)), RunOptions(), tasks or (SEMANTIC,), "hash")


def test_the_tasks_of_the_run_are_left():
    assert select_tasks(DATA, run_on(), "runs/a").tasks == (SEMANTIC,)


def test_other_classes_are_refused():
    other = dataclasses.replace(DATA, tasks=(GEOMETRIC,))
    with pytest.raises(
        InputError, match="was trained on the classes sky, tree, and folder has geometric: far, near; score it"
    ):
        select_tasks(other, run_on(), "runs/a")


@pytest.mark.parametrize(
    ("given", "described"),
    [
        (InputConfig(channels=(("bands", 5),)), r"5 channels of uint8: bands \(5\)"),
        (InputConfig(channels=(("depth", 3),)), r"3 channels of uint8: depth \(3\)"),
        (InputConfig(dtype="uint16"), r"3 channels of uint16: colour \(3\)"),
    ],
)
def test_other_inputs_are_refused(given, described):
    with pytest.raises(InputError, match=rf"on images of {described}, and those of folder have 3 channels of uint8"):
        select_tasks(DATA, run_on(given), "runs/a")
