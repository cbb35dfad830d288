"""ResNet: He et al. 2016, strides and paddings as in torchvision so that its weights fit."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers.batch_norm import batch_norm
from fcn_jax.layers.conv import Conv
from fcn_jax.models.feature_map import FeatureMap, add, convolve, pool

# He et al. 2015, over the outputs, as torchvision's resnet.py draws them.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Attributes:
        features: channels of the result.
        stride: of the first convolution and of the shortcut.
        dilations: of the two convolutions.
        freeze_bn: as in `ResNet`.
        dtype: of the computation.
    """

    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    freeze_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, ceil(h / stride), ceil(w / stride), features]."""
        conv = partial(Conv, self.features, use_bias=False, kernel_init=HE_INIT, dtype=self.dtype)
        norm = batch_norm(train and not self.freeze_bn, self.dtype)
        first, second = self.dilations
        conv1 = conv((3, 3), strides=self.stride, padding=first, kernel_dilation=first, name="conv1")
        conv2 = conv((3, 3), padding=second, kernel_dilation=second, name="conv2")
        y = convolve(conv1, x).map(norm(name="bn1")).map(jax.nn.relu)
        # A block that starts as the identity trains faster from scratch (Goyal et al. 2017, section 5.1).
        y = convolve(conv2, y).map(norm(name="bn2", scale_init=nn.initializers.zeros))
        if self.stride != 1 or x.values.shape[-1] != self.features:
            shortcut = conv((1, 1), strides=self.stride, padding=0, name="downsample_conv")
            x = convolve(shortcut, x).map(norm(name="downsample_bn"))
        return add(x, y).map(jax.nn.relu)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1 that narrow and widen, around a shortcut.

    The stride is in the 3x3 convolution ("v1.5"), where torchvision has it, not in the first 1x1 as in the paper.

    Attributes:
        features: channels of the 3x3 convolution; the result has four times as many.
        stride: of the 3x3 convolution and of the shortcut.
        dilations: the first is that of the 3x3 convolution; the second is `BasicBlock`'s alone.
        freeze_bn: as in `ResNet`.
        dtype: of the computation.
    """

    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    freeze_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, ceil(h / stride), ceil(w / stride), 4 features]."""
        conv = partial(Conv, use_bias=False, kernel_init=HE_INIT, dtype=self.dtype)
        norm = batch_norm(train and not self.freeze_bn, self.dtype)
        wide, dilation = 4 * self.features, self.dilations[0]
        conv1 = conv(self.features, (1, 1), padding=0, name="conv1")
        conv2 = conv(
            self.features, (3, 3), strides=self.stride, padding=dilation, kernel_dilation=dilation, name="conv2"
        )
        conv3 = conv(wide, (1, 1), padding=0, name="conv3")
        y = convolve(conv1, x).map(norm(name="bn1")).map(jax.nn.relu)
        y = convolve(conv2, y).map(norm(name="bn2")).map(jax.nn.relu)
        # As in BasicBlock.
        y = convolve(conv3, y).map(norm(name="bn3", scale_init=nn.initializers.zeros))
        if self.stride != 1 or x.values.shape[-1] != wide:
            shortcut = conv(wide, (1, 1), strides=self.stride, padding=0, name="downsample_conv")
            x = convolve(shortcut, x).map(norm(name="downsample_bn"))
        return add(x, y).map(jax.nn.relu)


class ResNet(nn.Module):
    """Image -> the last maps of stages 2, 3 and 4, at strides 8, 16 and 32, or up to `output_stride`.

    With the usual symmetric padding cell centres lie at 32 i + 0, not at VGG's 32 i + 15.5.

    Attributes:
        depths: blocks in each of the four stages; (3, 4, 6, 3) is ResNet34 or, of bottlenecks, ResNet50.
        block: `BasicBlock` or `Bottleneck`.
        width: channels of the first stage's 3x3 convolutions; each further stage doubles them.
        output_stride: 32, 16 or 8, where the maps stop shrinking. A later stage keeps its cells and dilates its
            convolutions instead, so that they see as far as before (Chen et al. 2015); the parameters are the same.
        freeze_bn: in training too, BatchNorm uses its running statistics and leaves them as they are: for batches too
            small to have their own. Scale and bias are still learned, unless the optimizer freezes them.
        dtype: of the computation; parameters and statistics are float32.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock
    width: int = 64
    output_stride: int = 32
    freeze_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Returns float[n, ceil(h/8), ceil(w/8), 2 width], [.. /16 .., 4 width] and [.. /32 .., 8 width].

        Bottlenecks give four times the channels.

        Raises:
            ValueError: `output_stride` has none of its values.
        """
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {self.output_stride}; it must be one of 8, 16, 32")
        stem = Conv(
            self.width,
            (7, 7),
            2,
            padding=3,
            use_bias=False,
            kernel_init=HE_INIT,
            dtype=self.dtype,
            name="conv1",
        )
        norm = batch_norm(train and not self.freeze_bn, self.dtype)
        x = convolve(stem, x).map(norm(name="bn1")).map(jax.nn.relu)
        x = pool(x, 3, 2, padding=1)
        stages = []
        dilation = 1
        for stage, depth in enumerate(self.depths):
            stride, before = 1 if stage == 0 else 2, dilation
            if x.stride * stride > self.output_stride:
                stride, dilation = 1, dilation * stride
            for index in range(depth):
                # The convolution that would have strode looks at cells of the stage before, so it dilates as they do.
                first = (stride, (before, dilation)) if index == 0 else (1, (dilation, dilation))
                name = f"layer{stage + 1}_{index}"
                x = self.block(self.width * 2**stage, *first, self.freeze_bn, self.dtype, name=name)(x, train)
            stages.append(x)
        return stages[1], stages[2], stages[3]
