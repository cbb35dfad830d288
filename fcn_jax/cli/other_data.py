"""The flags `--data.*` of commands that use a run on other data."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.data.hold_out import HELD_OUT
from fcn_jax.runtime.bucket import make_absolute

if TYPE_CHECKING:
    from fcn_jax.runs.run_dir import Run


@dataclass(frozen=True)
class OtherData:
    """The data to use instead of the run's. A flag that is not given takes the run's value."""

    name: str | None = None
    """data set; None: the run's"""
    dir: Path | None = None
    """folder or archive of the data set, which stays unchanged; None: the run's"""
    cache: Path | None = None
    """folder for prepared data; None: the run's"""
    classes: Path | None = None
    """file with one class name per line (only for `folder voc coco labelme`); None: the run's"""
    void: tuple[int, ...] | None = None
    """label values that mean void, besides 255 (only for the data sets `folder` and `voc`); None: the run's"""
    map: tuple[str, ...] | None = None
    """what values of masks mean, as 255=1 (only for the data sets `folder` and `voc`); None: the run's"""
    label_suffix: str | None = None
    """what the name of a mask has after that of its image (only for `folder` and `voc`); None: the run's"""


def choose_data(run: "Run", given: OtherData, split: str | None) -> tuple[DataConfig, DataOptions]:
    """Return the data to use: the run's, with what the flags change. Another data set has no values of the run.

    Args:
        run: the run.
        given: the flags.
        split: the split to use; None: the run's val-split. If that is held-out and the images are others, it is val.
    """
    config, options = run.config.data, run.options.data
    if given.name not in (None, config.name):
        config, options = DataConfig(given.name), DataOptions(cache=options.cache)
    if given.dir is not None and _name(given.dir) != _name(options.dir):  # other images: nothing of them was held out
        hold_out = config.hold_out if split == HELD_OUT else 0.0
        config = dataclasses.replace(config, hold_out=hold_out)
        if options.val_split == HELD_OUT:
            options = dataclasses.replace(options, val_split=None)
    config = dataclasses.replace(config, **_drop_none(void=given.void, map=given.map))
    places = {name: getattr(given, name) for name in ("dir", "cache", "classes", "label_suffix")}
    return config, dataclasses.replace(options, **_drop_none(**places, val_split=split))


def _name(folder: Path | None) -> str | None:
    """Return the full name of a folder; runs store full names."""
    return None if folder is None else os.path.normpath(make_absolute(folder))


def _drop_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
