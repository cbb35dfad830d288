"""VGG (Simonyan & Zisserman 2015), made fully convolutional: fc6 and fc7 are convolutions (FCN paper, section 4.1)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers import BatchNorm, Conv
from fcn_jax.models.arguments import check_choice, check_depths
from fcn_jax.models.backbones.initializers import HE_FAN_IN
from fcn_jax.models.backbones.norm import configure_norm
from fcn_jax.models.feature_map import FeatureMap, convolve, pool


class VGG(nn.Module):
    """VGG that maps an image to pool3, pool4 and fc7, at strides 8, 16 and 32.

    With padding "same" and pooling rounded up, cell i of fc7 has its centre at pixel 32 i + 15.5. With padding
    "reference" the image gets a border of 100 pixels and fc6 no padding, as in net.py of voc-fcn32s: the centres are at
    32 i + 12.5, the scores equal those of the published weights, and maps of a 500x500 image have 1.9 times the area.
    Names are those of the reference: conv1_1 ... conv5_3, fc6, fc7; the normalization after conv1_1 is bn1_1. The image
    may have any number of channels.

    Attributes:
        depths: convolutions in each of the five stages; (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19.
        fc_features: channels of fc6 and fc7; 4096 in the paper.
        fc_kernel: side of fc6's kernel, odd; 7 in the paper, 1 in lighter implementations.
        padding: "same", or "reference" to compute what the published weights were trained for.
        with_bn: whether to use BatchNorm between each 3x3 convolution and its ReLU, as in torchvision's vgg16_bn.
        freeze_bn: whether to normalize by the running statistics and keep them in training too. Scale and bias are
            still learned, unless the optimizer freezes them.
        dropout: share of the activations of fc6 and fc7 that is dropped in training, 0 to 1.
        dtype: dtype of the computation; parameters and statistics are float32.
        conv: class of the convolutions: `Conv`, `nn.Conv`, or a module with the same arguments.
        norm: class of the normalizations: `BatchNorm`, `nn.BatchNorm`, or a module with the same arguments.
    """

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    fc_features: int = 4096
    fc_kernel: int = 7
    padding: Literal["same", "reference"] = "same"
    with_bn: bool = False
    freeze_bn: bool = False
    dropout: float = 0.5
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Compute pool3, pool4 and fc7.

        Args:
            x: the image.
            train: whether to drop activations and to use, and update, the statistics of the batch.

        Returns:
            float[n, ceil(h / s), ceil(w / s), c] at the strides s = 8, 16, 32 with c = 256, 512, `fc_features`.

        Raises:
            ValueError: an attribute has a value that is not allowed.
        """
        check_depths(self.depths, 5)
        check_choice("padding", self.padding, ("same", "reference"))
        if self.fc_kernel < 1 or self.fc_kernel % 2 == 0:
            raise ValueError(f"fc_kernel is {self.fc_kernel}; it must be odd and at least 1, to keep cells in place")
        conv = partial(self.conv, kernel_init=HE_FAN_IN, dtype=self.dtype)
        norm = configure_norm(self.norm, train and not self.freeze_bn, self.dtype)
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
