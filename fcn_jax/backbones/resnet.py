"""ResNet with basic blocks: He et al. 2016, strides and paddings as in torchvision so that its weights fit."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.conv import Conv
from fcn_jax.feature_map import FeatureMap, add, convolve, pool

# He et al. 2015, over the outputs, as torchvision's resnet.py draws them.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Attributes:
        features: channels of the result.
        stride: of the first convolution and of the shortcut.
        dtype: of the computation.
    """

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, ceil(h / stride), ceil(w / stride), features]."""
        conv = partial(Conv, self.features, use_bias=False, kernel_init=HE_INIT, dtype=self.dtype)
        norm = batch_norm(train, self.dtype)
        y = convolve(conv((3, 3), strides=self.stride, padding=1, name="conv1"), x)
        y = y.map(norm(name="bn1")).map(jax.nn.relu)
        # A block that starts as the identity trains faster from scratch (Goyal et al. 2017, section 5.1).
        last_norm = norm(name="bn2", scale_init=nn.initializers.zeros)
        y = convolve(conv((3, 3), padding=1, name="conv2"), y).map(last_norm)
        if self.stride != 1 or x.values.shape[-1] != self.features:
            shortcut = conv((1, 1), strides=self.stride, padding=0, name="downsample_conv")
            x = convolve(shortcut, x).map(norm(name="downsample_bn"))
        return add(x, y).map(jax.nn.relu)


class ResNet(nn.Module):
    """Image -> the last maps of stages 2, 3 and 4, at strides 8, 16 and 32.

    With the usual symmetric padding cell centres lie at 32 i + 0, not at VGG's 32 i + 15.5.

    Attributes:
        depths: blocks in each of the four stages; (3, 4, 6, 3) is ResNet34, (2, 2, 2, 2) ResNet18.
        width: channels of the first stage; each further stage doubles them.
        dtype: of the computation; parameters and statistics are float32.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Returns float[n, ceil(h/8), ceil(w/8), 2 width], [.. /16 .., 4 width] and [.. /32 .., 8 width]."""
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
        x = convolve(stem, x).map(batch_norm(train, self.dtype)(name="bn1")).map(jax.nn.relu)
        x = pool(x, 3, 2, padding=1)
        stages = []
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = BasicBlock(self.width * 2**stage, stride, self.dtype, name=name)(x, train)
            stages.append(x)
        return stages[1], stages[2], stages[3]


def batch_norm(train: bool, dtype: Any) -> partial[nn.BatchNorm]:
    """BatchNorm as torchvision has it (momentum 0.1 there is 0.9 here); under `jit` over the global batch."""
    return partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype)
