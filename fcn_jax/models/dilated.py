"""The FCN of torchvision and others: a dilated ResNet, one head of two convolutions, a bilinear resize.

    image -> stages 1-3 -> stage 4 (stride 8) -> classifier (3x3, norm, ReLU, dropout, 1x1) -> resize -> logits
                 |
                 +--------------------------> aux_classifier, the same on stage 3 ----------> resize -> auxiliary logits

Where Long, Shelhamer & Darrell fuse finer maps, it never makes the maps coarser than stride 8 (Chen et al. 2015). The
auxiliary logits are for training alone: a second loss nearer to the image (Zhao et al. 2017, section 3.3).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from fcn_jax.layers.batch_norm import batch_norm
from fcn_jax.layers.conv import Conv
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import HE_INIT
from fcn_jax.models.feature_map import FeatureMap, convolve


class DilatedFCN(nn.Module):
    """A dilated backbone, a head on its last map and an auxiliary head on the one before.

    With "resnet50" and "resnet101" these are torchvision's `fcn_resnet50` and `fcn_resnet101`, whose weights fit.

    Attributes:
        num_classes: classes, background included.
        backbone: a ResNet of `BACKBONES`, dilated to stride 8, or a module that maps a `FeatureMap`
            of the image to three of later and later layers.
        dropout: share of the heads' activations dropped in training.
        dtype: of the computation up to the scores; parameters and resized logits are float32.
        has_auxiliary_scores: True for the class: `return_aux` gives auxiliary logits, which training may use.
    """

    has_auxiliary_scores: ClassVar[bool] = True

    num_classes: int
    backbone: str | nn.Module = "resnet50"
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[ArrayLike, "batch height width 3"],
        size: Int[ArrayLike, "batch 2"] | None = None,
        train: bool = False,
        return_aux: bool = False,
    ) -> Float[Array, "batch height width classes"] | tuple[Float[Array, "batch height width classes"], ...]:
        """Scores every pixel.

        Args:
            images: normalised images; any height and width from 1.
            size: rows and columns that belong to each image, as for `FCN`: the logits there equal those of each image
                alone.
            train: batch statistics and dropout (`mutable=["batch_stats"]`, `rngs={"dropout": key}`).
            return_aux: the auxiliary logits too; torchvision trains on their losses as main + 0.5 auxiliary.

        Returns:
            Logits, float32, of exactly the images' height and width; with `return_aux` the pair (logits, auxiliary
            logits).

        Raises:
            ValueError: an unknown backbone.
        """
        image = FeatureMap(jnp.asarray(images), None if size is None else jnp.asarray(size))
        _, before_last, last = self._backbone()(image, train)

        def logits(x: FeatureMap, name: str) -> Array:
            score = Head(self.num_classes, self.dropout, self.dtype, name=name)(x, train)
            return resize(score.map(lambda values: values.astype(jnp.float32)), image).values

        # Both heads always have parameters; under `jit` nothing is computed that is not returned.
        main, aux = logits(last, "classifier"), logits(before_last, "aux_classifier")
        return (main, aux) if return_aux else main

    def _backbone(self) -> nn.Module:
        if isinstance(self.backbone, nn.Module):
            return self.backbone
        resnets = [name for name in BACKBONES if name.startswith("resnet")]
        if self.backbone not in resnets:
            raise ValueError(f"backbone is {self.backbone!r}; it must be one of {', '.join(map(repr, resnets))}")
        return BACKBONES[self.backbone](output_stride=8, dtype=self.dtype, name="backbone")


class Head(nn.Module):
    """3x3 convolution to a quarter of the channels, BatchNorm, ReLU, dropout, 1x1 convolution to class scores."""

    num_classes: int
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """float[n, h, w, c] -> float[n, h, w, num_classes], on the same grid."""
        inner = x.values.shape[-1] // 4
        conv = Conv(inner, (3, 3), padding=1, use_bias=False, kernel_init=HE_INIT, dtype=self.dtype, name="conv")
        x = convolve(conv, x).map(batch_norm(train, self.dtype)(name="bn")).map(jax.nn.relu)
        x = x.map(nn.Dropout(self.dropout, deterministic=not train))
        # Starts at zero, as the scores of `FCN` do.
        zeros = nn.initializers.zeros
        score = Conv(self.num_classes, (1, 1), kernel_init=zeros, dtype=self.dtype, name="score")
        return convolve(score, x)


def resize(x: FeatureMap, to: FeatureMap) -> FeatureMap:
    """Bilinear resize of each image's part of `x` to its part of `to`.

    As PyTorch's `interpolate(..., mode="bilinear", align_corners=False)`: what counts is the ratio of the two sizes,
    not that of the strides. 8 rows become 57 by a factor of 7.125, so each image of a batch has a factor of its own.
    Two matrix products with the weights of the cells, one an axis.

    Args:
        x: scores, float32.
        to: the image.
    """

    def part(m: FeatureMap) -> Array:
        return jnp.broadcast_to(jnp.array([m.shape]), (len(m.values), 2)) if m.size is None else m.size

    weights = jax.vmap(_weights, (0, 0, None, None))
    rows, columns = (weights(part(x)[:, i], part(to)[:, i], x.shape[i], to.shape[i]) for i in (0, 1))
    precise = jax.lax.Precision.HIGHEST
    values = jnp.einsum("nih,nhwc->niwc", rows, x.cleared(), precision=precise)
    return to.replace(values=jnp.einsum("njw,niwc->nijc", columns, values, precision=precise))


def _weights(cells: Array, results: Array, canvas: int, result_canvas: int) -> Float[Array, "result_canvas canvas"]:
    """Weights of `cells` cells for each of `results` results, both at the front of their canvases."""
    last = jnp.maximum(cells - 1, 0).astype(jnp.float32)
    step = cells.astype(jnp.float32) / jnp.maximum(results, 1).astype(jnp.float32)
    place = (jnp.arange(result_canvas, dtype=jnp.float32) + 0.5) * step - 0.5
    # The tent of linear interpolation; beyond the first and last centres the outermost cell alone.
    distance = jnp.abs(jnp.clip(place, 0.0, last)[:, None] - jnp.arange(canvas, dtype=jnp.float32)[None, :])
    return jnp.maximum(0.0, 1.0 - distance)
