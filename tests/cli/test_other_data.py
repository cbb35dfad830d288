"""The data that a run is used on: its own, but for the flags."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fcn_jax.cli.other_data import OtherData, choose_data
from fcn_jax.config import Config, DataConfig, DataOptions, RunOptions

HELD = DataConfig("folder", (9,), ("255=1",), "all2", 0.25)
HELD_OPTIONS = DataOptions(Path("/own"), Path("/cache"), Path("n.txt"), "_m", "held-out", "disk")


@pytest.mark.parametrize(
    ("flags", "config", "options"),
    [
        ({}, {}, {}),
        ({"split": "all2"}, {}, {"val_split": "all2"}),
        ({"data": OtherData(void=(), label_suffix="")}, {"void": ()}, {"label_suffix": ""}),
        ({"data": OtherData(dir=Path("/own"))}, {}, {"dir": Path("/own")}),
        ({"data": OtherData(dir=Path(os.path.relpath("/own")))}, {}, {"dir": Path(os.path.relpath("/own"))}),
        # Other images: nothing of them was held out, unless the user asks for it.
        ({"data": OtherData(dir=Path("/new"))}, {"hold_out": 0.0}, {"dir": Path("/new"), "val_split": None}),
        ({"data": OtherData(dir=Path("/new")), "split": "held-out"}, {}, {"dir": Path("/new")}),
    ],
)
def test_the_data_to_use_are_those_of_the_run_but_for_the_flags(flags, config, options):
    run = SimpleNamespace(config=Config(data=HELD), options=RunOptions(data=HELD_OPTIONS))
    expected = (dataclasses.replace(HELD, **config), dataclasses.replace(HELD_OPTIONS, **options))
    assert choose_data(run, flags.get("data", OtherData()), flags.get("split")) == expected


def test_the_same_images_in_another_place_keep_the_split_of_the_run():
    options = dataclasses.replace(HELD_OPTIONS, val_split="test")
    run = SimpleNamespace(config=Config(data=HELD), options=RunOptions(data=options))
    _, found = choose_data(run, OtherData(dir=Path("/new")), None)
    assert found == dataclasses.replace(options, dir=Path("/new"))


def test_another_data_set_has_no_values_of_the_run():
    run = SimpleNamespace(config=Config(data=HELD), options=RunOptions(data=HELD_OPTIONS))
    found = choose_data(run, OtherData("camvid", Path("/c")), None)
    assert found == (DataConfig("camvid"), DataOptions(Path("/c"), Path("/cache")))
