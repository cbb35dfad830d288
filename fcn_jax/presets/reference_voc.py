"""The presets of the reference on PASCAL VOC and PASCAL-Context."""

import dataclasses

from fcn_jax.config import Config, DataConfig
from fcn_jax.presets.preset import Preset
from fcn_jax.presets.reference import SOURCE, Head, configure_reference, convert_to_mean


def _configure_voc(head: Head, steps: int = 100_000, skip_scales: tuple[float, float] = (1.0, 1.0)) -> Config:
    """Make the configuration of the reference's folder voc-HEAD.

    The images are the 10 582 of SBD and VOC 2012 that are not in val, where the reference had the 8 498 of SBD's train.
    None is larger than 500x500.
    """
    data = DataConfig("voc2012", train_split="trainaug")
    return configure_reference(head, data, crop=500, steps=steps, skip_scales=skip_scales)


def _configure_voc_alexnet() -> Config:
    """Make the configuration of voc-fcn-alexnet: a mean loss, standard momentum and accumulated gradients.

    Its net.py has no lr_mult for the backbone, so only the bias of the scores learns twice as fast.
    """
    config = _configure_voc("fcn32s")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, backbone="alexnet", weights="bvlc_reference_caffenet.caffemodel"),
        optim=dataclasses.replace(
            config.optim,
            learning_rate=1e-4,
            momentum=0.9,
            reduction="mean",
            bias_factor=1.0,
            rate_factors=(("score_fr/bias", 2.0),),
        ),
        batch_size=20,
        accumulate=20,
    )


def _configure_pascal_context(head: Head) -> Config:
    """Make the configuration of the reference's folder pascalcontext-HEAD. The images are VOC's."""
    return configure_reference(head, DataConfig("pascal-context"), crop=500, steps=400_000)


VOC = {
    "voc-fcn32s": Preset(
        "the paper's FCN-32s",
        _configure_voc("fcn32s"),
        source=SOURCE,
        published="63.6 on seg11valid (reference README), three days on a K40 (paper)",
    ),
    "voc-fcn16s": Preset(
        "the paper's FCN-16s, trained after FCN-32s",
        _configure_voc("fcn16s"),
        source=SOURCE,
        published="65.0 on seg11valid (reference README), four days on a K40 (paper)",
    ),
    "voc-fcn8s": Preset(
        "the paper's FCN-8s, trained after FCN-32s and FCN-16s",
        _configure_voc("fcn8s"),
        source=SOURCE,
        published="65.5 on seg11valid (reference README), five days on a K40 (paper)",
    ),
    # In the mean all images count the same. In the sum larger images count more.
    "voc-fcn8s-mean": Preset(
        "voc-fcn8s with a loss averaged over the pixels, and rate and decay converted to match",
        dataclasses.replace(
            _configure_voc("fcn8s"), optim=convert_to_mean(_configure_voc("fcn8s").optim, pixels=500 * 500)
        ),
        source=SOURCE,
        published="65.5 on seg11valid (that of voc-fcn8s)",
    ),
    "voc-fcn8s-atonce": Preset(
        "the paper's FCN-8s without stages",
        _configure_voc("fcn8s", 300_000, (0.01, 0.0001)),
        source=SOURCE,
        published="65.4 on seg11valid (reference README), as long as voc-fcn8s",
    ),
    "voc-fcn-alexnet": Preset(
        "the paper's FCN-AlexNet, FCN-32s on a CaffeNet",
        _configure_voc_alexnet(),
        source="shelhamer/fcn.berkeleyvision.org; starts from bvlc_reference_caffenet.caffemodel in the working "
        "directory (dl.caffe.berkeleyvision.org)",
        published="48.0 on seg11valid (reference README)",
    ),
    "pascalcontext-fcn32s": Preset(
        "FCN-32s on PASCAL-Context, 59 classes and background", _configure_pascal_context("fcn32s"), source=SOURCE
    ),
    "pascalcontext-fcn16s": Preset(
        "FCN-16s on PASCAL-Context, trained after FCN-32s", _configure_pascal_context("fcn16s"), source=SOURCE
    ),
    "pascalcontext-fcn8s": Preset(
        "FCN-8s on PASCAL-Context, trained after FCN-32s and FCN-16s",
        _configure_pascal_context("fcn8s"),
        source=SOURCE,
    ),
}
