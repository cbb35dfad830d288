"""Configurations in which every field differs from its default, so that none can get lost unseen."""

import dataclasses
from pathlib import Path

from fcn_jax.config import (
    CAFFE_INPUT,
    AugmentConfig,
    Config,
    DataConfig,
    DataOptions,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RunOptions,
)

FULL = Config(
    model=ModelConfig(
        head="fcn16s",
        backbone="resnet18",
        fc_features=64,
        fc_kernel=1,
        skip_scales=(0.5, 0.25),
        upsampling="fixed",
        dtype="bfloat16",
        output_stride=16,
        freeze_bn=True,
        weights="a.pth",
        allow=("backbone/fc6", "backbone/fc7"),
        fusion="late",
        input=InputConfig(
            "bgr", (*CAFFE_INPUT.mean, 7.5), (*CAFFE_INPUT.std, 0.5), (3,), (("colour", 3), ("depth", 1)), "uint16"
        ),
    ),
    data=DataConfig("folder", (11, 12), ("255=1", "7=void"), "train2", 0.125, ("colour",)),
    augment=AugmentConfig(64, (0.75, 1.5), False, 0.25),
    optim=OptimConfig(
        learning_rate=0.125,
        schedule="constant",
        power=2.0,
        warmup_steps=7,
        rate_cuts=(5, 9),
        momentum=0.5,
        weight_decay=0.25,
        clip_norm=3.0,
        feature_scale=8.0,
        reduction="sum",
        class_weights=(1.0, 2.5),
        label_smoothing=0.125,
        auxiliary_weight=0.25,
        frozen=("backbone/conv1", "backbone/bn1"),
        rate_factors=(("score", 10.0), ("upscore", 0.5)),
        bias_factor=2.0,
    ),
    steps=11,
    extend=(70_000, 80_000),
    batch_size=12,
    accumulate=3,
    seed=4,
    staged=True,
    stage_factors=(1.0, 0.5, 0.25),
)
# Some values exclude each other: a network starts from a file, from a run or from one for each input; ResNets have no
# other padding.
FROM_RUN = dataclasses.replace(
    FULL, model=ModelConfig("fcn16s", "vgg16", padding="reference", init_from=Path("runs/coarse"))
)
ONLY_FROM_RUN = {"model.init_from", "model.padding"}
FROM_STREAMS = dataclasses.replace(
    FULL, model=ModelConfig("fcn16s", "vgg16", fusion="late", init_streams=(Path("runs/colour"), Path("runs/hha")))
)
ONLY_FROM_STREAMS = {"model.init_streams"}
FULL_OPTIONS = RunOptions(
    data=DataOptions(Path("a b/c"), Path("/cache"), Path("names.txt"), "_mask", "val2", "disk"),
    run_dir=Path("runs/x"),
    eval_every=5,
    checkpoint_every=6,
    keep=7,
    log_every=8,
    eval_batch_size=9,
    workers=10,
    on_bad_example="skip",
    on_divergence="rewind",
    stuck_after=60.0,
    profile=3,
    dry_run=True,
)


def flatten(values: dict, prefix: str = "") -> dict:
    """The leaves of nested dictionaries, by names such as "model.input.order"."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
