"""Fully Convolutional Networks: score heads, upsampling and skip fusion (Long, Shelhamer & Darrell 2015, figure 3).

    image -> backbone -> pool3 (stride 8)   pool4 (stride 16)   top (stride 32)
                            |                   |                   |
                       score_pool3         score_pool4          score_fr
                            |                   |                   |
    FCN-32s                 |                   |                   +--- upscore x32 -> logits
    FCN-16s                 |                   + <-- upscore2 x2 --+
                            |                   +----------------------- upscore16 x16 -> logits
    FCN-8s                  + <-- upscore_pool4 x2 (of the sum above)
                            +------------------------------------------- upscore8 x8 -> logits

The kernels and crops of the transposed convolutions follow from the strides and offsets of the two grids (`alignment`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from fcn_jax.layers import Conv, ConvTranspose, bilinear_init, upsample_bilinear
from fcn_jax.layers.sizes import is_int
from fcn_jax.models.arguments import check_choice, check_dtype, check_num_classes, check_skip_scales, read_images
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.feature_map import FeatureMap, add, convolve

Padding = tuple[tuple[int, int], tuple[int, int]]


class FCN(nn.Module):
    """Fully convolutional network: a backbone, a score layer per scale, a transposed convolution per step up.

    Attributes:
        num_classes: number of classes, background included.
        backbone: a name of `fcn_jax.models.backbones.BACKBONES`, or a module that maps the `FeatureMap` of an image to
            three maps, at strides 8, 16 and 32.
        stride: stride of the finest map that is scored: 32, 16 or 8.
        skip_scales: factors on pool4 and pool3 before their score layers; the "at once" net has (0.01, 0.0001).
        upsampling: "learned", transposed convolutions that start bilinearly; or "fixed", bilinear upsampling.
        dtype: dtype of the computation up to the last scores; parameters and upsampled logits are float32.
        conv: class of the score layers: `Conv`, `nn.Conv`, or a module with the same arguments. A backbone has an
            attribute of its own: `FCN8s(21, ResNet(conv=nn.Conv, norm=nn.BatchNorm), conv=nn.Conv)`.
        tasks: number of classes of each task, which add up to `num_classes`; (): there is one task. The tasks share
            every feature map, and the scores are those of all tasks side by side (`fcn_jax.models.tasks`).
        has_auxiliary_scores: False, for all networks of this class: `__call__` has no argument `return_aux`.
    """

    has_auxiliary_scores: ClassVar[bool] = False

    num_classes: int
    backbone: str | nn.Module = "resnet34"
    stride: int = 8
    skip_scales: tuple[float, float] = (1.0, 1.0)
    upsampling: Literal["learned", "fixed"] = "learned"
    dtype: Any = jnp.float32
    conv: Callable[..., Any] = Conv
    tasks: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        images: Float[ArrayLike, "batch height width channels"],
        size: Int[ArrayLike, "batch 2"] | None = None,
        train: bool = False,
        origin: Int[ArrayLike, "batch 2"] | None = None,
    ) -> Float[Array, "batch height width classes"]:
        """Compute class scores for every pixel.

        Args:
            images: normalized images; any height and width from 1, any number of channels (3 for colour).
            size: rows and columns that belong to each image, for a batch of images of several sizes at the top left of
                one canvas. The logits there equal those of each image alone; the others have no meaning.
            train: whether to use batch statistics and dropout. It needs `mutable=["batch_stats"]` and
                `rngs={"dropout": key}`.
            origin: row and column of each image at which its canvas begins, multiples of 32, for a canvas that shows a
                part of a larger image; None: 0. `size` is then that of the whole image. Logits further from each cut
                border than the network reaches (`FeatureMap.reach`) equal those of the whole image.

        Returns:
            Logits, float32, of exactly the images' height and width.

        Raises:
            ValueError: an argument has another type or shape, or an attribute has a value that is not allowed.
        """
        self._check()
        image = read_images(images, size, origin)
        pool3, pool4, top = self._backbone(image, train)
        score = self._score(top, "score_fr")
        if self.stride <= 16:
            score = add(
                self.upsample(score, pool4, "upscore2"),
                self._score(pool4, "score_pool4", self.skip_scales[0]),
            )
        if self.stride <= 8:
            score = add(
                self.upsample(score, pool3, "upscore_pool4"),
                self._score(pool3, "score_pool3", self.skip_scales[1]),
            )
        score = score.map(lambda values: values.astype(jnp.float32))
        name = "upscore" if self.stride == 32 else f"upscore{self.stride}"
        logits = self.upsample(score, image, name)
        if type(self).upsample is FCN.upsample:  # how far another upsampling reaches is not known
            self.sow("intermediates", "logits", logits)
        return logits.values

    def _check(self) -> None:
        check_num_classes(self.num_classes, self.tasks)
        check_choice("stride", self.stride, (8, 16, 32))
        check_choice("upsampling", self.upsampling, ("learned", "fixed"))
        check_skip_scales(self.skip_scales)
        check_dtype(self.dtype)
        if not isinstance(self.backbone, nn.Module):
            check_choice("backbone", self.backbone, BACKBONES)

    def _backbone(self, image: FeatureMap, train: bool) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        if isinstance(self.backbone, nn.Module):
            return self.backbone(image, train)
        return BACKBONES[self.backbone](dtype=self.dtype, name="backbone")(image, train)

    def _score(self, x: FeatureMap, name: str, scale: float = 1.0) -> FeatureMap:
        """Compute class scores by a 1x1 convolution that starts at zero, as in the reference."""
        zeros = nn.initializers.zeros
        conv = self.conv(self.num_classes, (1, 1), padding=0, kernel_init=zeros, dtype=self.dtype, name=name)
        return convolve(conv, x if scale == 1.0 else x.map(lambda values: values * scale))

    def upsample(self, x: FeatureMap, to: FeatureMap, name: str) -> FeatureMap:
        """Upsample scores to the finer grid of `to`; subclasses may override this method."""
        if (x.stride, x.offset) == (to.stride, to.offset):
            return x  # the maps of a dilated backbone lie on one grid
        kernel, factor, padding = alignment(x, to)
        # Scores outside the image must not reach across its border.
        values = x.clear_outside()
        if self.upsampling == "fixed":
            values = upsample_bilinear(values, factor, kernel_size=kernel, padding=padding)
        else:
            values = ConvTranspose(
                self.num_classes,
                (kernel, kernel),
                (factor, factor),
                padding=padding,
                use_bias=False,
                kernel_init=bilinear_init,
                dtype=values.dtype,
                name=name,
            )(values)
        reach = x.reach + to.stride * (kernel - 1) / 2
        return to.replace(values=values, reach=reach, coarsest=x.coarsest)


FCN32s = partial(FCN, stride=32)
FCN16s = partial(FCN, stride=16)
FCN8s = partial(FCN, stride=8)


def alignment(x: FeatureMap, to: FeatureMap) -> tuple[int, int, Padding]:
    """Compute kernel, stride and crop of the transposed convolution from the grid of `x` to the grid of `to`.

    The middle of the kernel of cell i of `x` comes to cell i * s - p + (k - 1) / 2 of the result, for kernel k, stride
    s and padding p. That cell of `to` has to have the same centre in the image, which determines p. It is an integer
    for one of the two bilinear kernels of factor s: for the even k = 2s if the centres of `x` lie between those of `to`
    (VGG), for the odd k = 2s - 1 if they coincide with centres of `to` (ResNet).

    Returns:
        Side of the kernel, stride, and per axis the cells to crop in front and behind; negative values add cells.

    Raises:
        ValueError: the stride of `x` is not a multiple of that of `to`, the centres of `x` are neither on nor half way
            between those of `to`, or the crop depends on what symbols of `jax.export` stand for.
    """
    factor, remainder = divmod(x.stride, to.stride)
    shift = (x.offset - to.offset) / to.stride
    if remainder or factor < 1 or (2 * shift) % 1:
        raise ValueError(
            f"a map of stride {x.stride} and offset {x.offset} cannot be upsampled onto stride {to.stride} and offset "
            f"{to.offset}: the strides must divide and the centres be half or whole cells of the finer map apart"
        )
    kernel = 2 * factor - 1 if shift % 1 == 0 else 2 * factor
    front = round((kernel - 1) / 2 - shift)
    full = [(n - 1) * factor + kernel for n in x.shape]
    (top, bottom), (left, right) = [(front, size - front - wanted) for size, wanted in zip(full, to.shape, strict=True)]
    if not (is_int(bottom) and is_int(right)):
        raise ValueError(
            "symbolic heights and widths must be multiples of 32, such as 32 * n; give `size` for images that are "
            f"smaller. A map of the size {x.shape} cannot be upsampled to {to.shape}, because the crop depends on what "
            "the symbols stand for"
        )
    return kernel, factor, ((top, bottom), (left, right))
