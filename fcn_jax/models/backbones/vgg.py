"""VGG (Simonyan & Zisserman 2015), made fully convolutional: fc6 and fc7 are convolutions (FCN paper, section 4.1)."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers.batch_norm import batch_norm
from fcn_jax.layers.conv import Conv
from fcn_jax.models.feature_map import FeatureMap, convolve, pool

# He et al. 2015: keeps the variance of activations through ReLUs, which VGG without normalisation needs.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class VGG(nn.Module):
    """Image -> pool3, pool4, fc7, at strides 8, 16 and 32.

    With everything padded "same" and pooling rounded up, cell centres lie at 32 i + 15.5. The reference instead gives
    the image a border of 100 pixels and leaves fc6 unpadded (net.py of voc-fcn32s), with centres at 32 i + 12.5: 1.9
    times the area at 500x500, for scores that equal the published ones. Names are the reference's: conv1_1 ... conv5_3,
    fc6, fc7; a norm is bn1_1 after conv1_1. The image may have any number of channels.

    Attributes:
        depths: convolutions in each of the five stages; (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19.
        fc_features: channels of fc6 and fc7; the paper has 4096.
        fc_kernel: side of fc6's kernel, odd; the paper has 7, lighter re-implementations 1.
        padding: "same", or "reference" to compute exactly what the published weights were trained in.
        with_bn: BatchNorm between each 3x3 convolution and its ReLU, as in torchvision's vgg16_bn.
        freeze_bn: in training too, BatchNorm uses its running statistics and leaves them as they are. Scale and bias
            are still learned, unless the optimizer freezes them.
        dropout: share of fc6's and fc7's activations dropped in training.
        dtype: of the computation; parameters and statistics are float32.
    """

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    fc_features: int = 4096
    fc_kernel: int = 7
    padding: Literal["same", "reference"] = "same"
    with_bn: bool = False
    freeze_bn: bool = False
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Returns pool3 [n, ceil(h/8), ceil(w/8), 256], pool4 [.. /16 .., 512] and fc7 [.. /32 .., fc_features]."""
        conv = partial(Conv, kernel_init=HE_INIT, dtype=self.dtype)
        norm = batch_norm(train and not self.freeze_bn, self.dtype)
        side = self.fc_kernel
        border, fc_padding = {"same": (1, side // 2), "reference": (100, 0)}[self.padding]
        pools = []
        for stage, depth in enumerate(self.depths, start=1):
            features = min(64 * 2 ** (stage - 1), 512)
            for index in range(1, depth + 1):
                padding = border if stage == index == 1 else 1
                layer = conv(features, (3, 3), padding=padding, name=f"conv{stage}_{index}")
                x = convolve(layer, x)
                if self.with_bn:
                    x = x.map(norm(name=f"bn{stage}_{index}"))
                x = x.map(jax.nn.relu)
            x = pool(x, 2, 2, ceil=True)
            pools.append(x)
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        fc6 = conv(self.fc_features, (side, side), padding=fc_padding, name="fc6")
        fc7 = conv(self.fc_features, (1, 1), padding=0, name="fc7")
        x = convolve(fc6, x).map(jax.nn.relu).map(drop())
        x = convolve(fc7, x).map(jax.nn.relu).map(drop())
        return pools[2], pools[3], x
