"""Backbones by name. Each maps an image's FeatureMap to those at strides 8, 16 and 32."""

from functools import partial

from fcn_jax.backbones.alexnet import AlexNet
from fcn_jax.backbones.googlenet import GoogLeNet
from fcn_jax.backbones.resnet import ResNet
from fcn_jax.backbones.vgg import VGG

BACKBONES = {
    "vgg16": partial(VGG, depths=(2, 2, 3, 3, 3)),
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
    "googlenet_bn": partial(GoogLeNet, with_bn=True),
}
