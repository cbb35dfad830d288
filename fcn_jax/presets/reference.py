"""The recipe that the networks of the reference share, and its conversion to a mean loss."""

import dataclasses
from typing import Literal

from fcn_jax.config import AugmentConfig, Config, DataConfig, InputConfig, ModelConfig, OptimConfig

Head = Literal["fcn32s", "fcn16s", "fcn8s"]

SOURCE = (
    "shelhamer/fcn.berkeleyvision.org; starts from VGG_ILSVRC_16_layers.caffemodel in the working directory "
    "(gist.github.com/ksimonyan/211839e770f7b538e2d8)"
)


def configure_reference(
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


def convert_to_mean(optim: OptimConfig, pixels: int) -> OptimConfig:
    """Convert an optimizer for a summed loss into the one that does the same for the mean over `pixels` pixels.

    The gradient becomes `pixels` times smaller. So the rate is multiplied by `pixels`, and the decay, which is added to
    the gradient, is divided by it: 1e-10 and 5e-4 over the sum of 500 * 500 pixels are 2.5e-5 and 2e-9 over their mean.
    """
    assert optim.learning_rate is not None
    rate, decay = optim.learning_rate * pixels, optim.weight_decay / pixels
    return dataclasses.replace(optim, learning_rate=rate, weight_decay=decay, reduction="mean")
