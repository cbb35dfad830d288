"""Backbones by name; each maps the `FeatureMap` of an image to three maps at strides 8, 16 and 32."""

from functools import partial

from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.googlenet import GoogLeNet
from fcn_jax.models.backbones.resnet import Bottleneck, ResNet
from fcn_jax.models.backbones.vgg import VGG

BACKBONES = {
    "vgg16": partial(VGG, depths=(2, 2, 3, 3, 3)),
    "vgg16_bn": partial(VGG, depths=(2, 2, 3, 3, 3), with_bn=True),
    "vgg19": partial(VGG, depths=(2, 2, 4, 4, 4)),
    "vgg19_bn": partial(VGG, depths=(2, 2, 4, 4, 4), with_bn=True),
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, depths=(3, 4, 6, 3), block=Bottleneck),
    "resnet101": partial(ResNet, depths=(3, 4, 23, 3), block=Bottleneck),
    "resnet152": partial(ResNet, depths=(3, 8, 36, 3), block=Bottleneck),
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
    "googlenet_bn": partial(GoogLeNet, with_bn=True),
}
