"""Initializers of convolution kernels (He et al. 2015): they keep the variance of activations through ReLUs."""

from flax import linen as nn

# Over the inputs: for VGG, AlexNet and GoogLeNet, which have no batch norm.
HE_FAN_IN = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# Over the outputs, as torchvision's resnet.py draws them.
HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
