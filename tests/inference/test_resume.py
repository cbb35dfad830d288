"""Which results of an interrupted prediction are kept."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcn_jax.config import ModelConfig
from fcn_jax.data.labels import palette
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.resume import MADE_BY, describe_origin, find_done, write_origin
from fcn_jax.inference.tta import FLIP_AND_SCALES

OUTPUTS = Outputs(palette(3), ("sky", "sea", "sand"))
VARIABLES = {"params": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.zeros(2, np.float32)}}
ORIGIN = describe_origin(ModelConfig(), 7, VARIABLES, None, OUTPUTS)
ORDER = ("a.jpg", "b.jpg", MADE_BY, "a.png", "a_overlay.png", "b.png", "b_overlay.png")


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Two images, what their results are made by, and the results, a second after each other."""
    write_origin(ORIGIN, tmp_path)
    for time, name in enumerate(ORDER):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    return [tmp_path / "a.jpg", tmp_path / "b.jpg"]


def test_complete_results_of_the_same_origin_are_kept(tmp_path, files):
    assert find_done(files, tmp_path, OUTPUTS, ORIGIN) == files
    assert find_done(files, tmp_path / "none", OUTPUTS, ORIGIN) == []


@pytest.mark.parametrize("name", ["b.png", "b_overlay.png"])
def test_results_that_lack_a_file_are_not_kept(tmp_path, files, name):
    (tmp_path / name).unlink()
    assert find_done(files, tmp_path, OUTPUTS, ORIGIN) == files[:1]


@pytest.mark.parametrize("changed", ["a.jpg", MADE_BY])
def test_results_older_than_their_image_or_their_origin_are_not_kept(tmp_path, files, changed):
    os.utime(tmp_path / changed, (4, 4))  # as old as the overlay of the first image
    assert find_done(files, tmp_path, OUTPUTS, ORIGIN) == files[1:]


def test_results_of_another_origin_are_not_kept(tmp_path, files):
    others = [
        describe_origin(ModelConfig(skip_scales=(0.5, 1.0)), 7, VARIABLES, None, OUTPUTS),
        describe_origin(ModelConfig(), 8, VARIABLES, None, OUTPUTS),
        describe_origin(ModelConfig(), 7, {**VARIABLES, "batch_stats": np.ones(1)}, None, OUTPUTS),
        describe_origin(ModelConfig(), 7, {"params": {**VARIABLES["params"], "bias": np.ones(2)}}, None, OUTPUTS),
        describe_origin(ModelConfig(), 7, VARIABLES, FLIP_AND_SCALES, OUTPUTS),
        *(
            describe_origin(ModelConfig(), 7, VARIABLES, None, replace(OUTPUTS, **change))
            for change in ({"alpha": 0.4}, {"legend": True}, {"values": np.arange(3, dtype=np.uint8)})
        ),
    ]
    for other in others:
        assert find_done(files, tmp_path, OUTPUTS, other) == []
    # Summaries are made anew in any case, and may be added.
    more = describe_origin(ModelConfig(), 7, VARIABLES, None, replace(OUTPUTS, counts=True, polygons=True))
    assert find_done(files, tmp_path, OUTPUTS, more) == files


@pytest.mark.parametrize("content", ["", "{", "[1", "null"])
def test_a_damaged_origin_keeps_nothing(tmp_path, files, content):
    (tmp_path / MADE_BY).write_text(content)
    assert find_done(files, tmp_path, OUTPUTS, ORIGIN) == []


def test_a_new_origin_makes_all_results_older(tmp_path, files):
    write_origin(ORIGIN, tmp_path)
    assert find_done(files, tmp_path, OUTPUTS, ORIGIN) == []
