"""AlexNet as in CaffeNet (Krizhevsky et al. 2012, normalised after pooling), made fully convolutional."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers.conv import Conv
from fcn_jax.models.backbones.vgg import HE_INIT
from fcn_jax.models.feature_map import FeatureMap, convolve, pool


class AlexNet(nn.Module):
    """Image -> pool1, pool2, fc7, at strides 8, 16 and 32.

    Two of conv2's, conv4's and conv5's halves see only half of the channels, as on Krizhevsky's two GPUs. fc6 has the
    even side 6: padded by 3 it gives a cell more than its input, half a cell outwards, and the head aligns that as
    anything else. The reference gives the image a border of 100 pixels instead (net.py of voc-fcn-alexnet). Names are
    CaffeNet's: conv1 ... conv5, fc6, fc7.

    Attributes:
        fc_features: channels of fc6 and fc7; the paper has 4096.
        padding: "same", or "reference" to compute exactly what the published weights were trained in.
        dropout: share of fc6's and fc7's activations dropped in training.
        dtype: of the computation; parameters are float32.
    """

    fc_features: int = 4096
    padding: Literal["same", "reference"] = "same"
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Returns pool1 [n, about h/8, about w/8, 96], pool2 [.. /16 .., 256] and fc7 [.. /32 + 1 .., fc_features]."""
        border, fc_padding = {"same": (5, 3), "reference": (100, 0)}[self.padding]

        def conv(name: str, x: FeatureMap, features: int, side: int, padding: int, stride: int = 1, groups: int = 1):
            layer = Conv(
                features,
                (side, side),
                stride,
                padding=padding,
                feature_group_count=groups,
                kernel_init=HE_INIT,
                dtype=self.dtype,
                name=name,
            )
            return convolve(layer, x).map(jax.nn.relu)

        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        pool1 = pool(conv("conv1", x, 96, 11, border, stride=4), 3, 2, ceil=True)
        x = conv("conv2", pool1.map(local_response_norm), 256, 5, 2, groups=2)
        pool2 = pool(x, 3, 2, ceil=True)
        x = conv("conv3", pool2.map(local_response_norm), 384, 3, 1)
        x = conv("conv4", x, 384, 3, 1, groups=2)
        x = pool(conv("conv5", x, 256, 3, 1, groups=2), 3, 2, ceil=True)
        x = conv("fc6", x, self.fc_features, 6, fc_padding).map(drop())
        x = conv("fc7", x, self.fc_features, 1, 0).map(drop())
        return pool1, pool2, x


def local_response_norm(x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> jax.Array:
    """Caffe's LRN: x / (1 + alpha * mean of the squares of the `size` channels around) ** beta.

    Beyond the first and the last channel the squares are 0 and still counted (Krizhevsky et al. 2012, section 3.3,
    with a sum instead of Caffe's mean).
    """
    channels = x.shape[-1]
    reach = size // 2
    squares = jnp.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    total = sum(squares[..., i : i + channels] for i in range(size))
    return x * (1 + alpha / size * total) ** -beta
