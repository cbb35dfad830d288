"""Every backbone with every head of FCN learns from the defaults, from scratch, on the built-in data set."""

import typing

import numpy as np
import pytest
from command_line import Place, read_metrics

from fcn_jax.config import ModelConfig

BACKBONES = typing.get_args(typing.get_type_hints(ModelConfig)["backbone"])
HEADS = ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce")
STEPS = 60
CASES = [(backbone, preset) for backbone in BACKBONES for preset in HEADS]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("defaults"), xla_flags="")  # these networks run longer than they compile


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "preset"), CASES)
def test_the_loss_falls_from_the_defaults(place, backbone, preset):
    flags = ("--model.backbone", backbone, "--steps", str(STEPS), "--log-every", "1")
    place.run("train", preset, *flags, "--run-dir", f"{backbone}-{preset}", minutes=20)
    lines = [line for line in read_metrics(place.root / f"{backbone}-{preset}") if line["split"] == "train"]
    losses = [line["loss"] for line in lines]
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(np.log(7), rel=1e-4)  # the scores start at zero
    assert np.mean(losses[-10:]) < 0.9 * losses[0], losses
