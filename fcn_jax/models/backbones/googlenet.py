"""GoogLeNet (Inception v1; Szegedy et al. 2015) as in Caffe, with LRN, and as in torchvision, with BatchNorm."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers import BatchNorm, Conv
from fcn_jax.models.arguments import check_choice
from fcn_jax.models.backbones.initializers import HE_FAN_IN
from fcn_jax.models.backbones.local_response_norm import local_response_norm
from fcn_jax.models.backbones.norm import configure_norm
from fcn_jax.models.feature_map import FeatureMap, concatenate, convolve, pool

# Channels of the six convolutions of a block: 1x1; 1x1 and the 3x3 after it; 1x1 and the 5x5 after it; 1x1 after the
# pooling (Szegedy et al. 2015, table 1).
BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class Unit(nn.Module):
    """Convolution, BatchNorm if the network has it, and ReLU.

    Attributes:
        features: channels of the result.
        side: side of the kernel, odd; the padding is half of it.
        stride: stride of the convolution.
        with_bn: whether to use BatchNorm instead of a bias, as in torchvision.
        dtype: dtype of the computation.
        conv: as in `GoogLeNet`.
        norm: as in `GoogLeNet`.
    """

    features: int
    side: int
    stride: int = 1
    with_bn: bool = False
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """Map float[n, h, w, c] to float[n, ceil(h / stride), ceil(w / stride), features]."""
        conv = self.conv(
            self.features,
            (self.side, self.side),
            self.stride,
            padding=self.side // 2,
            use_bias=not self.with_bn,
            kernel_init=HE_FAN_IN,
            dtype=self.dtype,
            name="conv",
        )
        x = convolve(conv, x)
        if self.with_bn:
            norm = configure_norm(self.norm, train, self.dtype, epsilon=1e-3)
            x = x.map(norm(name="bn"))
        return x.map(jax.nn.relu)


class Inception(nn.Module):
    """Inception block: 1x1, 3x3 and 5x5 convolutions and a 3x3 pooling, concatenated.

    Attributes:
        features: channels of the six convolutions, in the order of `BLOCKS`.
        with_bn: whether to use BatchNorm, and 3x3 in place of 5x5, as in torchvision.
        dtype: dtype of the computation.
        conv: as in `GoogLeNet`.
        norm: as in `GoogLeNet`.
    """

    features: tuple[int, int, int, int, int, int]
    with_bn: bool = False
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """Map float[n, h, w, c] to float[n, h, w, channels of the four branches]."""
        unit = partial(Unit, with_bn=self.with_bn, dtype=self.dtype, conv=self.conv, norm=self.norm)
        one, reduce3, three, reduce5, five, pooled = self.features
        wide = 3 if self.with_bn else 5
        branches = [
            unit(one, 1, name="branch1")(x, train),
            unit(three, 3, name="branch2_1")(unit(reduce3, 1, name="branch2_0")(x, train), train),
            unit(five, wide, name="branch3_1")(unit(reduce5, 1, name="branch3_0")(x, train), train),
            unit(pooled, 1, name="branch4_1")(pool(x, 3, 1, padding=1), train),
        ]
        return concatenate(branches)


class GoogLeNet(nn.Module):
    """GoogLeNet that maps an image to the last blocks of stages 3, 4 and 5, at strides 8, 16 and 32.

    Both published forms pool windows of 3x3 without padding, so that the first cell at stride 32 has its centre 30
    pixels inside the image (22 with BatchNorm), and scores fade to 0 over a border of that width. With padding "same"
    these windows are padded by 1: cell i has its centre at pixel 32 i (32 i + 8 with BatchNorm), and the cells reach
    from border to border.

    Names are those of torchvision in both forms: conv1 ... conv3, inception3a ... inception5b, branch2_0. Caffe's
    "inception_3a/3x3_reduce" is inception3a/branch2_0. The auxiliary classifiers of training are left out.

    Attributes:
        with_bn: False is Caffe's bvlc_googlenet, with LRN and 5x5 convolutions. True is torchvision's googlenet, with
            BatchNorm, with 3x3 in place of 5x5, and with a last pooling of 2x2.
        padding: "same", or "reference" to compute what the published weights were trained for.
        freeze_bn: whether to normalize by the running statistics and keep them in training too.
        dropout: share of the last block's activations that is dropped in training, 0 to 1.
        dtype: dtype of the computation; parameters and statistics are float32.
        conv: class of the convolutions: `Conv`, `nn.Conv`, or a module with the same arguments.
        norm: class of the normalizations: `BatchNorm`, `nn.BatchNorm`, or a module with the same arguments.
    """

    with_bn: bool = False
    padding: Literal["same", "reference"] = "same"
    freeze_bn: bool = False
    dropout: float = 0.4
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Compute inception3b, inception4e and inception5b.

        Args:
            x: the image.
            train: whether to drop activations and to use, and update, the statistics of the batch.

        Returns:
            float[n, about h / s, about w / s, c] at the strides s = 8, 16, 32 with c = 480, 832, 1024.

        Raises:
            ValueError: the padding is unknown.
        """
        check_choice("padding", self.padding, ("same", "reference"))
        border = {"same": 1, "reference": 0}[self.padding]
        form: dict[str, Any] = {"with_bn": self.with_bn, "dtype": self.dtype, "conv": self.conv, "norm": self.norm}
        normalize = (lambda x: x) if self.with_bn else local_response_norm
        updates = train and not self.freeze_bn

        x = pool(Unit(64, 7, 2, **form, name="conv1")(x, updates), 3, 2, border, ceil=True).map(normalize)
        x = Unit(64, 1, **form, name="conv2")(x, updates)
        x = Unit(192, 3, **form, name="conv3")(x, updates).map(normalize)
        stages = []
        last = (2, 0) if self.with_bn else (3, border)
        for stage, (window, padding) in {"3": (3, border), "4": (3, border), "5": last}.items():
            x = pool(x, window, 2, padding, ceil=True)
            for name, features in BLOCKS.items():
                if name.startswith(f"inception{stage}"):
                    x = Inception(features, **form, name=name)(x, updates)
            stages.append(x)
        top = stages[2].map(nn.Dropout(self.dropout, deterministic=not train))
        return stages[0], stages[1], top
