"""AlexNet as in CaffeNet (Krizhevsky et al. 2012, normalized after pooling), made fully convolutional."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers import Conv
from fcn_jax.models.arguments import check_choice
from fcn_jax.models.backbones.initializers import HE_FAN_IN
from fcn_jax.models.backbones.local_response_norm import local_response_norm
from fcn_jax.models.feature_map import FeatureMap, convolve, pool


class AlexNet(nn.Module):
    """AlexNet that maps an image to pool1, pool2 and fc7, at strides 8, 16 and 32.

    conv2, conv4 and conv5 have two groups, each of which sees half of the channels, as on Krizhevsky's two GPUs. fc6
    has a 6x6 kernel. With a padding of 3 its result has one cell more than its input, and its cells lie
    half a cell further out; the head aligns them as it does all maps. With padding "reference" the image gets a border
    of 100 pixels instead, as in net.py of voc-fcn-alexnet. Names are those of CaffeNet: conv1 ... conv5, fc6, fc7.

    Attributes:
        fc_features: channels of fc6 and fc7; 4096 in the paper.
        padding: "same", or "reference" to compute what the published weights were trained for.
        dropout: share of the activations of fc6 and fc7 that is dropped in training, 0 to 1.
        dtype: dtype of the computation; parameters are float32.
        conv: class of the convolutions: `Conv`, `nn.Conv`, or a module with the same arguments.
    """

    fc_features: int = 4096
    padding: Literal["same", "reference"] = "same"
    dropout: float = 0.5
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Compute pool1, pool2 and fc7.

        Args:
            x: the image.
            train: whether to drop activations.

        Returns:
            float[n, about h / s, about w / s, c] at the strides s = 8, 16, 32 with c = 96, 256, `fc_features`; fc7 has
            one cell more per axis.

        Raises:
            ValueError: the padding is unknown.
        """
        check_choice("padding", self.padding, ("same", "reference"))
        border, fc_padding = {"same": (5, 3), "reference": (100, 0)}[self.padding]

        def conv(name: str, x: FeatureMap, features: int, side: int, padding: int, stride: int = 1, groups: int = 1):
            layer = self.conv(
                features,
                (side, side),
                stride,
                padding=padding,
                feature_group_count=groups,
                kernel_init=HE_FAN_IN,
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
