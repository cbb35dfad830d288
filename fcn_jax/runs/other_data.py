"""Choose what a data set has for the network of a run, or say why it does not fit."""

from pathlib import Path

from fcn_jax.config import InputConfig
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.tasks import describe_classes
from fcn_jax.errors import InputError
from fcn_jax.runs.run_dir import Run


def select_tasks(dataset: Dataset, run: Run, name: str | Path) -> Dataset:
    """Return a data set with the labels of the run's tasks only.

    Args:
        dataset: the data set, which may have changed since the training, or be another one.
        run: the run.
        name: what the user calls the run.

    Raises:
        InputError: the data set has other classes, or images of other channels or another type.
    """
    selected = dataset.select(run.tasks)
    if selected is None:
        raise InputError(
            f"{name} was trained on the classes {describe_classes(run.tasks)}, and {dataset.name} has "
            f"{describe_classes(dataset.tasks)}; score it on data with the same classes"
        )
    wanted, given = map(_describe_input, (run.config.model.input_or_default, dataset.input))
    if wanted != given:
        raise InputError(
            f"{name} was trained on images of {wanted}, and those of {dataset.name} have {given}; score it on data "
            "with the same inputs"
        )
    return selected


def _describe_input(given: InputConfig) -> str:
    names = " and ".join(f"{name} ({count})" for name, count in given.channels)
    return f"{given.num_channels} channels of {given.dtype}: {names}"
