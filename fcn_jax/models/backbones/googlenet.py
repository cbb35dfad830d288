"""GoogLeNet (Inception v1; Szegedy et al. 2015): Caffe's net with LRN, and torchvision's with BatchNorm."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fcn_jax.layers.batch_norm import BatchNorm
from fcn_jax.layers.conv import Conv
from fcn_jax.models.backbones.alexnet import local_response_norm
from fcn_jax.models.backbones.vgg import HE_INIT
from fcn_jax.models.feature_map import FeatureMap, convolve, pool

# Szegedy et al. 2015, table 1: features of 1x1; 3x3's reduction, 3x3; 5x5's reduction, 5x5; the pooled branch.
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
    """Convolution, BatchNorm where the net has it, ReLU.

    Attributes:
        features: channels of the result.
        side: of the kernel, odd; padded "same".
        stride: of the convolution.
        with_bn: torchvision's form, whose convolutions have no bias.
        dtype: of the computation.
    """

    features: int
    side: int
    stride: int = 1
    with_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, ceil(h / stride), ceil(w / stride), features]."""
        conv = Conv(
            self.features,
            (self.side, self.side),
            self.stride,
            padding=self.side // 2,
            use_bias=not self.with_bn,
            kernel_init=HE_INIT,
            dtype=self.dtype,
            name="conv",
        )
        x = convolve(conv, x)
        if self.with_bn:
            norm = BatchNorm(not train, epsilon=1e-3, dtype=self.dtype, name="bn")
            x = x.map(norm)
        return x.map(jax.nn.relu)


class Inception(nn.Module):
    """What 1x1, 3x3 and 5x5 windows and a 3x3 pooling see, side by side.

    Attributes:
        features: of the six convolutions, in the order of `BLOCKS`.
        with_bn: torchvision's form, in which the 5x5 convolution is 3x3.
        dtype: of the computation.
    """

    features: tuple[int, int, int, int, int, int]
    with_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, h, w, features of the four branches]."""
        unit = partial(Unit, with_bn=self.with_bn, dtype=self.dtype)
        one, reduce3, three, reduce5, five, pooled = self.features
        wide = 3 if self.with_bn else 5
        branches = [
            unit(one, 1, name="branch1")(x, train),
            unit(three, 3, name="branch2_1")(unit(reduce3, 1, name="branch2_0")(x, train), train),
            unit(five, wide, name="branch3_1")(unit(reduce5, 1, name="branch3_0")(x, train), train),
            unit(pooled, 1, name="branch4_1")(pool(x, 3, 1, padding=1), train),
        ]
        return branches[0].replace(values=jnp.concatenate([branch.values for branch in branches], axis=-1))


class GoogLeNet(nn.Module):
    """Image -> the last blocks of stages 3, 4 and 5, at strides 8, 16 and 32.

    Names are torchvision's in both forms (conv1 ... conv3, inception3a ... inception5b, branch2_0); Caffe's
    "inception_3a/3x3_reduce" is inception3a/branch2_0. The auxiliary classifiers of training are left out.

    Attributes:
        with_bn: False: Caffe's bvlc_googlenet, with LRN and 5x5; True: torchvision's googlenet, with BatchNorm,
            3x3 in place of 5x5 and a last pooling of 2x2.
        freeze_bn: in training too, BatchNorm uses its running statistics and leaves them as they are.
        dropout: share of the last block's activations dropped in training.
        dtype: of the computation; parameters and statistics are float32.
    """

    with_bn: bool = False
    freeze_bn: bool = False
    dropout: float = 0.4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        """Returns inception3b [n, about h/8, about w/8, 480], 4e [.. /16 .., 832] and 5b [.. /32 .., 1024]."""
        form: dict[str, Any] = {"with_bn": self.with_bn, "dtype": self.dtype}
        normalise = (lambda x: x) if self.with_bn else local_response_norm
        learns = train and not self.freeze_bn

        x = pool(Unit(64, 7, 2, **form, name="conv1")(x, learns), 3, 2, ceil=True).map(normalise)
        x = Unit(64, 1, **form, name="conv2")(x, learns)
        x = Unit(192, 3, **form, name="conv3")(x, learns).map(normalise)
        stages = []
        last_window = 2 if self.with_bn else 3
        for stage, window in (("3", 3), ("4", 3), ("5", last_window)):
            x = pool(x, window, 2, ceil=True)
            for name, features in BLOCKS.items():
                if name.startswith(f"inception{stage}"):
                    x = Inception(features, **form, name=name)(x, learns)
            stages.append(x)
        top = stages[2].map(nn.Dropout(self.dropout, deterministic=not train))
        return stages[0], stages[1], top
