"""The presets of the reference on the scenes of NYUDv2 and SIFT Flow, with several inputs or tasks."""

import dataclasses
from pathlib import Path
from typing import Any

from fcn_jax.config import Config, DataConfig, DataOptions, InputConfig, RunOptions
from fcn_jax.presets.preset import Preset
from fcn_jax.presets.reference import SOURCE, Head, configure_reference


def _configure_nyud(*inputs: str, rate: float = 1e-10, **model: Any) -> Config:
    """Make the configuration of a folder nyud-fcn32s-INPUTS of the reference, on whole images of 640x480 pixels.

    Args:
        inputs: names of the inputs.
        rate: base_lr of its solver.prototxt.
        **model: what differs from the networks on VOC's colours.
    """
    data = DataConfig("nyud", train_split="trainval", inputs=inputs)
    config = configure_reference("fcn32s", data, crop=640, steps=100_000, rate=rate)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def _configure_siftflow(head: Head) -> Config:
    """Make the configuration of the reference's folder siftflow-HEAD: both tasks, on images of 256x256 pixels.

    Its stages have the rates 1e-10, 1e-12 and 1e-12.
    """
    return configure_reference(
        head,
        DataConfig("siftflow"),
        crop=256,
        steps=100_000,
        stage_factors=(1.0, 1e-2, 1e-2),
        input=InputConfig("bgr", (114.578, 115.294, 108.353), (1.0, 1.0, 1.0)),  # siftflow_layers.py
    )


# The means of the reference's nyud_layers.py. VGG16 was trained with another mean of colours, so `allow` names it.
_NYUD_MEAN, _LOG_DEPTH_MEAN, _HHA_MEAN = (116.190, 97.203, 92.318), 7.844, (132.431, 94.076, 118.477)
_ON_TEST = RunOptions(DataOptions(val_split="test"))

SCENES = {
    "nyud-fcn32s-color": Preset(
        "FCN-32s on the colours of NYUDv2",
        _configure_nyud("colour", input=InputConfig("bgr", _NYUD_MEAN, (1.0,) * 3), allow=("input/mean",)),
        _ON_TEST,
        source=SOURCE,
        published="29.2 on test (CVPR paper, whose network was trained in another way)",
    ),
    "nyud-fcn32s-color-d": Preset(
        "FCN-32s on the colours and the log depth of NYUDv2, as four channels of one network",
        _configure_nyud(
            "colour",
            "depth",
            input=InputConfig("bgr", (*_NYUD_MEAN, _LOG_DEPTH_MEAN), (1.0,) * 4, log=(3,)),
            allow=("input/mean",),
        ),
        _ON_TEST,
        source=SOURCE,
        published="30.5 on test (CVPR paper)",
    ),
    "nyud-fcn32s-hha": Preset(
        "FCN-32s on the depth of NYUDv2 as HHA",
        _configure_nyud("hha", input=InputConfig("rgb", _HHA_MEAN, (1.0,) * 3)),
        _ON_TEST,
        source=SOURCE,
        published="24.2 on test (CVPR paper)",
    ),
    # The networks that it starts from are trained by the two presets, or downloaded.
    "nyud-fcn32s-color-hha": Preset(
        "late fusion of two FCN-32s on NYUDv2: the mean of the scores on colour and on HHA",
        _configure_nyud(
            "colour",
            "hha",
            rate=1e-12,
            fusion="late",
            weights=None,
            init_streams=(Path("nyud-fcn32s-color-heavy.caffemodel"), Path("nyud-fcn32s-hha-heavy.caffemodel")),
        ),
        _ON_TEST,
        source="shelhamer/fcn.berkeleyvision.org; starts from its two networks in the working directory, or from "
        "--model.init-streams COLOUR_RUN HHA_RUN",
        published="32.8 on test (CVPR paper)",
    ),
    "siftflow-fcn32s": Preset(
        "FCN-32s on SIFT Flow, semantic and geometric classes together",
        _configure_siftflow("fcn32s"),
        source=SOURCE,
    ),
    "siftflow-fcn16s": Preset(
        "FCN-16s on SIFT Flow, trained after FCN-32s",
        _configure_siftflow("fcn16s"),
        source=SOURCE,
        published="39.5 on val, geometric pixel accuracy 94.3 (CVPR paper, whose network was trained in another way)",
    ),
    "siftflow-fcn8s": Preset(
        "FCN-8s on SIFT Flow, trained after FCN-32s and FCN-16s", _configure_siftflow("fcn8s"), source=SOURCE
    ),
}
