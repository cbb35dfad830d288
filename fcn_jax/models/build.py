"""The network of a configuration, and its variables."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fcn_jax.config import ModelConfig
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from fcn_jax.models.reference import LateFusion
from fcn_jax.runtime.traced import keep_shapes

Network = FCN | DilatedFCN | LateFusion


def build(config: ModelConfig, *num_classes: int) -> Network:
    """Build the network of a configuration.

    Args:
        config: the configuration of the model; for late fusion its `input` names the streams.
        num_classes: number of classes of each task, background included. The network has the scores of all of them.
    """
    total, tasks = sum(num_classes), num_classes if len(num_classes) > 1 else ()
    dtype = jnp.dtype(config.dtype)
    dilated = config.head == "dilated"
    backbone = BACKBONES[config.backbone](dtype=dtype)
    match backbone:
        case ResNet():
            stride = 8 if dilated else config.output_stride
            backbone = backbone.clone(output_stride=stride, freeze_bn=config.freeze_bn)
        case VGG():
            backbone = backbone.clone(
                fc_features=config.fc_features,
                fc_kernel=config.fc_kernel,
                padding=config.padding,
                freeze_bn=config.freeze_bn,
            )
        case AlexNet():
            backbone = backbone.clone(fc_features=config.fc_features, padding=config.padding)
        case GoogLeNet():
            backbone = backbone.clone(padding=config.padding, freeze_bn=config.freeze_bn)
    if dilated:
        return DilatedFCN(total, backbone, dtype=dtype, tasks=tasks)
    head = {"fcn32s": FCN32s, "fcn16s": FCN16s, "fcn8s": FCN8s}[config.head]
    fcn = head(
        total,
        backbone,
        skip_scales=config.skip_scales,
        upsampling=config.upsampling,
        dtype=dtype,
        tasks=tasks,
    )
    return LateFusion(fcn, config.input_or_default.channels) if config.fusion == "late" else fcn


def init_variables(model: Network, seed: int, channels: int = 3) -> dict[str, Any]:
    """Initialize a network's variables: "params", float32, and with BatchNorm "batch_stats"; a function of the seed.

    Args:
        model: the network.
        seed: the seed.
        channels: number of channels of its images.
    """
    return dict(model.init(jax.random.key(seed), jnp.zeros((1, 32, 32, channels))))


def shape_variables(model: Network, channels: int = 3) -> dict[str, Any]:
    """Return the shapes of a network's variables, as `init_variables` makes them.

    Args:
        model: the network.
        channels: number of channels of its images.
    """
    return {name: shapes for name, shapes in trace_network(model, channels).items() if name != "intermediates"}


def trace_network(model: Network, channels: int = 3) -> dict[str, Any]:
    """Return the shapes of a network's variables and, as "intermediates", of its feature maps on 32x32 pixels.

    It computes no numbers.

    Args:
        model: the network.
        channels: number of channels of its images.
    """
    return _trace_network(model, channels)  # pyright: ignore[reportArgumentType]  Flax makes modules hashable


@functools.cache  # a trace takes a third of a second, and most commands need the shapes twice
def _trace_network(model: Network, channels: int) -> dict[str, Any]:
    def trace() -> Any:
        return model.init(jax.random.key(0), jnp.zeros((1, 32, 32, channels)), mutable=True)

    return dict(keep_shapes(trace, model, channels))
