"""The outline of a data set, which is all that a dry run needs of it: no file is read or downloaded."""

from pathlib import Path

import numpy as np

from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.data import labels
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.hold_out import HELD_OUT
from fcn_jax.data.sources import choose_inputs, get_source
from fcn_jax.data.tasks import Task


def outline_dataset(config: DataConfig, options: DataOptions) -> Dataset | None:
    """Outline a data set whose files the user does not give: its classes, its splits and the size of its images.

    Args:
        config: which data set.
        options: where its files are.

    Returns:
        The data set without any example, and without names for its classes. None if `options.dir` is given, or if the
        size of its images is not known without them.

    Raises:
        InputError: there is no such data set.
    """
    source = get_source(config.name)
    outline = source.outline
    if options.dir is not None or outline is None or outline.max_size is None:
        return None
    splits = (*outline.splits, *outline.further_splits, *([HELD_OUT] if config.hold_out else []))
    return Dataset(
        name=source.name,
        tasks=tuple(
            Task(f"task {number}", tuple(f"class {label}" for label in range(count)), labels.palette(count))
            for number, count in enumerate(outline.num_classes)
        ),
        splits=dict.fromkeys(splits, 0),
        max_size=outline.max_size,
        folder=Path(),
        contents="",
        inputs=choose_inputs(source, config.inputs),
        # No class is known to be absent.
        pixels={split: np.ones((len(outline.num_classes), 256), np.int64) for split in splits},
        _open=lambda split: (),
    )
