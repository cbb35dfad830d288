"""ResNet (He et al. 2016) with the strides and paddings of torchvision, so that its weights fit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers import BatchNorm, Conv
from fcn_jax.models.arguments import check_choice, check_depths
from fcn_jax.models.backbones.initializers import HE_FAN_OUT
from fcn_jax.models.backbones.norm import configure_norm
from fcn_jax.models.feature_map import FeatureMap, add, convolve, pool


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions.

    Attributes:
        features: channels of the result.
        stride: stride of the first convolution and of the shortcut.
        dilations: dilations of the two convolutions.
        freeze_bn: as in `ResNet`.
        dtype: dtype of the computation.
        conv: as in `ResNet`.
        norm: as in `ResNet`.
    """

    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    freeze_bn: bool = False
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """Map float[n, h, w, c] to float[n, ceil(h / stride), ceil(w / stride), features]."""
        conv = partial(self.conv, self.features, use_bias=False, kernel_init=HE_FAN_OUT, dtype=self.dtype)
        norm = configure_norm(self.norm, train and not self.freeze_bn, self.dtype)
        first, second = self.dilations
        conv1 = conv((3, 3), strides=self.stride, padding=first, kernel_dilation=first, name="conv1")
        conv2 = conv((3, 3), padding=second, kernel_dilation=second, name="conv2")
        y = convolve(conv1, x).map(norm(name="bn1")).map(jax.nn.relu)
        # With a scale of zero the block starts as the identity and trains faster from scratch (Goyal et al. 2017,
        # section 5.1).
        y = convolve(conv2, y).map(norm(name="bn2", scale_init=nn.initializers.zeros))
        if self.stride != 1 or x.values.shape[-1] != self.features:
            shortcut = conv((1, 1), strides=self.stride, padding=0, name="downsample_conv")
            x = convolve(shortcut, x).map(norm(name="downsample_bn"))
        return add(x, y).map(jax.nn.relu)


class Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution.

    The stride is in the 3x3 convolution ("v1.5") as in torchvision, not in the first 1x1 convolution as in the paper.

    Attributes:
        features: channels of the 3x3 convolution; the result has four times as many.
        stride: stride of the 3x3 convolution and of the shortcut.
        dilations: the first is the dilation of the 3x3 convolution; the second is used by `BasicBlock` alone.
        freeze_bn: as in `ResNet`.
        dtype: dtype of the computation.
        conv: as in `ResNet`.
        norm: as in `ResNet`.
    """

    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    freeze_bn: bool = False
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """Map float[n, h, w, c] to float[n, ceil(h / stride), ceil(w / stride), 4 * features]."""
        conv = partial(self.conv, use_bias=False, kernel_init=HE_FAN_OUT, dtype=self.dtype)
        norm = configure_norm(self.norm, train and not self.freeze_bn, self.dtype)
        wide, dilation = 4 * self.features, self.dilations[0]
        conv1 = conv(self.features, (1, 1), padding=0, name="conv1")
        conv2 = conv(
            self.features, (3, 3), strides=self.stride, padding=dilation, kernel_dilation=dilation, name="conv2"
        )
        conv3 = conv(wide, (1, 1), padding=0, name="conv3")
        y = convolve(conv1, x).map(norm(name="bn1")).map(jax.nn.relu)
        y = convolve(conv2, y).map(norm(name="bn2")).map(jax.nn.relu)
        # The scale is zero for the reason given in `BasicBlock`.
        y = convolve(conv3, y).map(norm(name="bn3", scale_init=nn.initializers.zeros))
        if self.stride != 1 or x.values.shape[-1] != wide:
            shortcut = conv(wide, (1, 1), strides=self.stride, padding=0, name="downsample_conv")
            x = convolve(shortcut, x).map(norm(name="downsample_bn"))
        return add(x, y).map(jax.nn.relu)


class ResNet(nn.Module):
    """ResNet that maps an image to the last maps of stages 2, 3 and 4, at strides 8, 16 and 32.

    The padding is symmetric, so cell i of the last map has its centre at pixel 32 i (in VGG, at 32 i + 15.5).

    Attributes:
        depths: blocks in each of the four stages; (3, 4, 6, 3) is ResNet34 or, with `Bottleneck`, ResNet50.
        block: `BasicBlock` or `Bottleneck`.
        width: channels of the first stage's 3x3 convolutions; each further stage doubles them.
        output_stride: the largest stride: 32, 16 or 8. Later stages keep the number of cells and dilate their
            convolutions instead, so that they see as far as before (Chen et al. 2015). The parameters are the same.
        freeze_bn: whether to normalize by the running statistics and keep them in training too, for batches that are
            too small to have good statistics. Scale and bias are still learned, unless the optimizer freezes them.
        dtype: dtype of the computation; parameters and statistics are float32.
        conv: class of the convolutions: `Conv`, `nn.Conv`, or a module with the same arguments.
        norm: class of the normalizations: `BatchNorm`, `nn.BatchNorm`, or a module with the same arguments.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock
    width: int = 64
    output_stride: int = 32
    freeze_bn: bool = False
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Compute the maps of stages 2, 3 and 4.

        Args:
            x: the image.
            train: whether to use, and update, the statistics of the batch.

        Returns:
            float[n, ceil(h / s), ceil(w / s), c] at the strides s = 8, 16, 32 with c = 2, 4, 8 times `width`
            channels; four times as many with `Bottleneck`.

        Raises:
            ValueError: there are not four depths of at least 1, or `output_stride` is not one of 8, 16 and 32.
        """
        check_depths(self.depths, 4)
        check_choice("output_stride", self.output_stride, (8, 16, 32))
        stem = self.conv(
            self.width,
            (7, 7),
            2,
            padding=3,
            use_bias=False,
            kernel_init=HE_FAN_OUT,
            dtype=self.dtype,
            name="conv1",
        )
        norm = configure_norm(self.norm, train and not self.freeze_bn, self.dtype)
        x = convolve(stem, x).map(norm(name="bn1")).map(jax.nn.relu)
        x = pool(x, 3, 2, padding=1)
        stages = []
        dilation = 1
        for stage, depth in enumerate(self.depths):
            stride, before = 1 if stage == 0 else 2, dilation
            if x.stride * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            for index in range(depth):
                # The convolution that has lost its stride reads the cells of the stage before, so it has their
                # dilation.
                first = (stride, (before, dilation)) if index == 0 else (1, (dilation, dilation))
                name = f"layer{stage + 1}_{index}"
                layers = {"freeze_bn": self.freeze_bn, "dtype": self.dtype, "conv": self.conv, "norm": self.norm}
                x = self.block(self.width * 2**stage, *first, **layers, name=name)(x, train)
            stages.append(x)
        return stages[1], stages[2], stages[3]
