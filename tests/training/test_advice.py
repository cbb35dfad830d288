"""What a training that has diverged is told to do."""

import dataclasses

import pytest

from fcn_jax.config import CAFFE_INPUT, Config, DataConfig, ModelConfig, OptimConfig
from fcn_jax.data.defaults import fill_config
from fcn_jax.training.advice import advise_steady

VGG = ModelConfig(backbone="vgg16")
RESNET = ModelConfig(backbone="resnet18")
FROM_CAFFE = dataclasses.replace(VGG, input=CAFFE_INPUT)


@pytest.mark.parametrize(
    ("model", "optim", "advice"),
    [
        (VGG, OptimConfig(learning_rate=0.4), "vgg16 is steadier on shapes with --optim.learning-rate 0.05"),
        (VGG, OptimConfig(), "give --optim.learning-rate 0.005"),
        (VGG, OptimConfig(learning_rate=0.04), "give --optim.learning-rate 0.004"),
        (
            VGG,
            OptimConfig(learning_rate=0.01, warmup_steps=0, clip_norm=0.0),
            "vgg16 is steadier on shapes with --optim.warmup-steps 85 --optim.clip-norm 1",
        ),
        (
            FROM_CAFFE,
            OptimConfig(learning_rate=0.1, feature_scale=1.0),
            "vgg16 is steadier on shapes with --optim.learning-rate 0.05 --optim.feature-scale 57.63",
        ),
        (RESNET, OptimConfig(learning_rate=5.0), "resnet18 is steadier on shapes with --optim.learning-rate 0.1"),
        (RESNET, OptimConfig(), "give --optim.learning-rate 0.01"),
        (RESNET, OptimConfig(momentum=0.99), "resnet18 is steadier on shapes with --optim.momentum 0.9"),
        (RESNET, OptimConfig(momentum=0.5), "give --optim.learning-rate 0.01"),
        (RESNET, OptimConfig(rate_cuts=(10, 20)), "give --optim.learning-rate 0.0025"),
        (VGG, OptimConfig(warmup_steps=200, clip_norm=0.1), "give --optim.learning-rate 0.005"),
        (VGG, OptimConfig(learning_rate=1e-10, reduction="sum", clip_norm=0.0), "give --optim.learning-rate 1e-11"),
    ],
)
def test_the_flags_that_would_have_worked(model, optim, advice):
    """They are the defaults, where the training had bolder values."""
    assert advise_steady(fill_config(Config(model=model, optim=optim))) == advice


def test_the_rate_is_that_of_the_data_set():
    config = Config(model=VGG, data=DataConfig("voc2012"), optim=OptimConfig(learning_rate=1.0))
    assert advise_steady(fill_config(config)) == "vgg16 is steadier on voc2012 with --optim.learning-rate 0.01"
