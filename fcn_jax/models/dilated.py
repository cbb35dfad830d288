"""The FCN of torchvision: a dilated ResNet, one head of two convolutions, a bilinear resize.

    image -> stages 1-3 -> stage 4 (stride 8) -> classifier (3x3, norm, ReLU, dropout, 1x1) -> resize -> logits
                 |
                 +--------------------------> aux_classifier, the same on stage 3 ----------> resize -> auxiliary logits

Long, Shelhamer & Darrell fuse finer maps; this network keeps its maps at stride 8 (Chen et al. 2015). The auxiliary
logits are used in training only, for a second loss on an earlier map (Zhao et al. 2017, section 3.3).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from fcn_jax.layers import BatchNorm, Conv
from fcn_jax.models.arguments import check_choice, check_dtype, check_num_classes, read_images
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.initializers import HE_FAN_OUT
from fcn_jax.models.backbones.norm import configure_norm
from fcn_jax.models.feature_map import FeatureMap, convolve


class DilatedFCN(nn.Module):
    """Dilated backbone with a head on its last map and an auxiliary head on the map before.

    With "resnet50" and "resnet101" these are torchvision's `fcn_resnet50` and `fcn_resnet101`, whose weights fit.

    Attributes:
        num_classes: number of classes, background included.
        backbone: name of a ResNet of `BACKBONES`, which is dilated to stride 8; or a module that maps the `FeatureMap`
            of an image to three maps, the later ones from later layers.
        dropout: share of the heads' activations that is dropped in training, 0 to 1.
        dtype: dtype of the computation up to the scores; parameters and resized logits are float32.
        conv: class of the heads' convolutions, as in `FCN`.
        norm: class of the heads' normalizations: `BatchNorm`, `nn.BatchNorm`, or a module with the same arguments.
        tasks: number of classes of each task, as in `FCN`.
        has_auxiliary_scores: True, for all networks of this class: `return_aux` gives auxiliary logits.
    """

    has_auxiliary_scores: ClassVar[bool] = True

    num_classes: int
    backbone: str | nn.Module = "resnet50"
    dropout: float = 0.1
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm
    tasks: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        images: Float[ArrayLike, "batch height width 3"],
        size: Int[ArrayLike, "batch 2"] | None = None,
        train: bool = False,
        return_aux: bool = False,
        origin: Int[ArrayLike, "batch 2"] | None = None,
    ) -> Float[Array, "batch height width classes"] | tuple[Float[Array, "batch height width classes"], ...]:
        """Compute class scores for every pixel.

        Args:
            images: normalized images; any height and width from 1.
            size: rows and columns that belong to each image, as in `FCN`. The logits there equal those of each image
                alone.
            train: whether to use batch statistics and dropout. It needs `mutable=["batch_stats"]` and
                `rngs={"dropout": key}`.
            return_aux: whether to return auxiliary logits too. torchvision trains on the loss of the logits plus 0.5
                times the loss of the auxiliary logits.
            origin: row and column of each image at which its canvas begins, as in `FCN`.

        Returns:
            Logits, float32, of exactly the images' height and width; with `return_aux` the pair (logits, auxiliary
            logits).

        Raises:
            ValueError: an argument has another type or shape, or an attribute has a value that is not allowed.
        """
        check_num_classes(self.num_classes, self.tasks)
        check_dtype(self.dtype)
        image = read_images(images, size, origin)
        _, before_last, last = self._backbone()(image, train)

        def compute_logits(x: FeatureMap, name: str) -> FeatureMap:
            head = Head(self.num_classes, self.dropout, self.dtype, self.conv, self.norm, name=name)
            score = head(x, train)
            return resize(score.map(lambda values: values.astype(jnp.float32)), image)

        # Both heads always have parameters. Under `jit` the auxiliary logits are computed only if they are returned.
        main, aux = compute_logits(last, "classifier"), compute_logits(before_last, "aux_classifier")
        self.sow("intermediates", "logits", main)
        return (main.values, aux.values) if return_aux else main.values

    def _backbone(self) -> nn.Module:
        if isinstance(self.backbone, nn.Module):
            return self.backbone
        check_choice("backbone", self.backbone, [name for name in BACKBONES if name.startswith("resnet")])
        return BACKBONES[self.backbone](output_stride=8, dtype=self.dtype, name="backbone")


class Head(nn.Module):
    """Head of a 3x3 convolution to a quarter of the channels, BatchNorm, ReLU, dropout, and a 1x1 convolution.

    Attributes are those of `DilatedFCN`.
    """

    num_classes: int
    dropout: float = 0.1
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> FeatureMap:
        """Map float[n, h, w, c] to class scores, float[n, h, w, num_classes], on the same grid."""
        inner = x.values.shape[-1] // 4
        conv = self.conv(
            inner, (3, 3), padding=1, use_bias=False, kernel_init=HE_FAN_OUT, dtype=self.dtype, name="conv"
        )
        norm = configure_norm(self.norm, train, self.dtype)
        x = convolve(conv, x).map(norm(name="bn")).map(jax.nn.relu)
        x = x.map(nn.Dropout(self.dropout, deterministic=not train))
        # The scores start at zero, as in `FCN`.
        zeros = nn.initializers.zeros
        score = self.conv(self.num_classes, (1, 1), padding=0, kernel_init=zeros, dtype=self.dtype, name="score")
        return convolve(score, x)


def resize(x: FeatureMap, to: FeatureMap) -> FeatureMap:
    """Resize each image's part of `x` bilinearly to its part of `to`.

    The result is that of PyTorch's `interpolate(..., mode="bilinear", align_corners=False)`: it depends on the ratio of
    the two sizes and not on the ratio of the strides. 8 rows become 57 by a factor of 7.125, so each image of a batch
    has a factor of its own. The resize is two matrix products with the weights of the cells, one per axis.

    Args:
        x: scores, float32.
        to: the image.
    """

    def read_places(m: FeatureMap, axis: int) -> tuple[Array, Array]:
        """Return the size of each image, and the places of the canvas's cells in it, float32[batch, canvas]."""

        def take(pairs: Array) -> Array:  # `pairs[:, axis]` would be a gather where the batch is a symbol (export)
            return jax.lax.index_in_dim(pairs, axis, axis=1, keepdims=False)

        size = jnp.full(len(m.values), m.shape[axis]) if m.size is None else take(m.size)
        first = jnp.zeros_like(size) if m.origin is None else take(m.origin)
        return size, (first[:, None] + jnp.arange(m.shape[axis])[None, :]).astype(jnp.float32)

    rows, columns = (jax.vmap(_weigh_cells)(*read_places(x, axis), *read_places(to, axis)) for axis in (0, 1))
    precise = jax.lax.Precision.HIGHEST
    values = jnp.einsum("nih,nhwc->niwc", rows, x.clear_outside(), precision=precise)
    values = jnp.einsum("njw,niwc->nijc", columns, values, precision=precise)
    # The resize stretches the grid of the cells over the image. That moves cells by less than |offset| + 2 strides,
    # because the first and the last window reach equally far over the borders, up to a stride that is rounded. A pixel
    # depends on two cells, of which the further one is less than one stride away.
    return to.replace(values=values, reach=x.reach + abs(x.offset) + 3 * x.stride, coarsest=x.coarsest)


def _weigh_cells(
    cells: Array, at: Float[Array, " canvas"], results: Array, result_at: Float[Array, " result_canvas"]
) -> Float[Array, "result_canvas canvas"]:
    """Compute the weight in each result, of `results` at the places `result_at`, of each of `cells` cells at `at`."""
    last = jnp.maximum(cells - 1, 0).astype(jnp.float32)
    step = cells.astype(jnp.float32) / jnp.maximum(results, 1).astype(jnp.float32)
    place = (result_at + 0.5) * step - 0.5
    # The tent of linear interpolation. Beyond the first and the last centre only the outermost cell counts.
    distance = jnp.abs(jnp.clip(place, 0.0, last)[:, None] - at[None, :])
    return jnp.maximum(0.0, 1.0 - distance)
