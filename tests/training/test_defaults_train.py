"""Every backbone with every head of FCN learns from the defaults, from scratch, on the built-in data set."""

import typing

import numpy as np
import pytest
from command_line import Place, draw_folder_data, read_metrics

from fcn_jax.config import ModelConfig

BACKBONES = typing.get_args(typing.get_type_hints(ModelConfig)["backbone"])
HEADS = ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce")
STEPS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("defaults")
    draw_folder_data(folder / "data")
    return Place(folder)


def train(place: Place, preset: str, *flags: str) -> list[float]:
    """The losses of every step of a training."""
    run = f"run{len(list(place.root.glob('run*')))}"
    place.run("train", preset, *flags, "--steps", str(STEPS), "--log-every", "1", "--run-dir", run, minutes=20)
    losses = [line["loss"] for line in read_metrics(place.root / run) if line["split"] == "train"]
    assert len(losses) == STEPS
    return losses


def assert_learned(losses: list[float], classes: int) -> None:
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(np.log(classes), rel=1e-4)  # the scores start at zero
    assert np.mean(losses[-10:]) < 0.9 * losses[0], losses


@pytest.mark.slow
@pytest.mark.parametrize("preset", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_loss_falls_from_the_defaults(place, backbone, preset):
    assert_learned(train(place, preset, "--model.backbone", backbone), classes=7)


def test_the_loss_of_a_vgg_without_batch_norm_falls(place):
    """A small form, which takes seconds: few images, small crops, and fewer channels in fc6 and fc7."""
    data = ("--data.name", "folder", "--data.dir", str(place.root / "data"), "--data.val-split", "tiny")
    small = ("--augment.crop", "32", "--batch-size", "4", "--model.fc-features", "128")
    assert_learned(train(place, "fcn8s", "--model.backbone", "vgg16", *data, *small), classes=2)
