"""The networks of the reference (github.com/shelhamer/fcn.berkeleyvision.org), under the names of its folders.

They compute what its net.py files compute, with the border of 100 pixels and the fixed upsampling, so its published
weights give the same scores here. docs/weights.md lists the file for each network. Two kinds of network are composed
of FCNs: `JointFCN` has two tasks on one backbone, `LateFusion` averages the scores of two networks.
"""

from itertools import accumulate, pairwise
from typing import Any, ClassVar

import jax
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, Int

from fcn_jax.data.tasks import split_scores
from fcn_jax.models.arguments import read_images
from fcn_jax.models.backbones.alexnet import AlexNet
from fcn_jax.models.backbones.vgg import VGG
from fcn_jax.models.fcn import FCN
from fcn_jax.models.tasks import count_by_task


class JointFCN(FCN):
    """FCN for several tasks on one backbone (siftflow-fcn8s/net.py): its score channels are those of all tasks.

    The tasks share every feature map and differ from the score layers on. 1x1 convolutions and fixed upsampling treat
    output channels separately, so an FCN with `tasks` computes the same. This one returns the logits of each task.
    """

    def __call__(
        self,
        images: Float[ArrayLike, "batch height width channels"],
        size: Int[ArrayLike, "batch 2"] | None = None,
        train: bool = False,
        origin: Int[ArrayLike, "batch 2"] | None = None,
    ) -> tuple[Float[Array, "batch height width _"], ...]:
        """Compute the logits of each task; the arguments are those of `FCN`.

        Raises:
            ValueError: as in `FCN`.
        """
        return split_scores(super().__call__(images, size, train, origin), count_by_task(self))


class LateFusion(nn.Module):
    """Mean of the scores of several FCNs, each on its own channels (nyud-fcn32s-color-hha/net.py).

    The reference averages before the upsampling. The upsampling is linear and the same in all networks, so the result
    is the same.

    Attributes:
        network: the FCN of every stream; each stream has its own parameters.
        streams: name and number of channels of each stream; the channels of the images are theirs, in this order.
        has_auxiliary_scores: as in `FCN`.
    """

    has_auxiliary_scores: ClassVar[bool] = False

    network: FCN
    streams: tuple[tuple[str, int], ...] = (("colour", 3), ("hha", 3))

    @property
    def num_classes(self) -> int:
        """Number of classes of every stream."""
        return self.network.num_classes

    @property
    def tasks(self) -> tuple[int, ...]:
        """Number of classes of each task of every stream."""
        return self.network.tasks

    @nn.compact
    def __call__(
        self,
        images: Float[ArrayLike, "batch height width channels"],
        size: Int[ArrayLike, "batch 2"] | None = None,
        train: bool = False,
        origin: Int[ArrayLike, "batch 2"] | None = None,
    ) -> Float[Array, "batch height width classes"]:
        """Compute logits; the arguments are those of `FCN`.

        Raises:
            ValueError: the images have other channels than the streams, or as in `FCN`.
        """
        values = read_images(images, size, origin).values
        ends = [0, *accumulate(channels for _, channels in self.streams)]
        count = ends[-1]
        if values.shape[-1] != count:
            listing = ", ".join(f"{name} {channels}" for name, channels in self.streams)
            raise ValueError(
                f"images have {values.shape[-1]} channels; they must have {count}, those of the streams one after the "
                f"other: {listing}"
            )
        backbone = self.network.backbone
        logits = []
        for (stream, _), limits in zip(self.streams, pairwise(ends), strict=True):
            part = jax.lax.slice_in_dim(values, *limits, axis=-1)
            # Each stream has a backbone of its own. One module in two networks would share its parameters.
            own = backbone.clone(parent=None) if isinstance(backbone, nn.Module) else backbone
            logits.append(self.network.clone(backbone=own, parent=self, name=stream)(part, size, train, origin))
        return sum(logits[1:], logits[0]) / len(logits)


def _on_vgg16(num_classes: int, stride: int, **attributes: Any) -> FCN:
    return FCN(num_classes, VGG(padding="reference"), stride, upsampling="fixed", **attributes)


_STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}

NETWORKS: dict[str, nn.Module] = {
    **{f"voc-{name}": _on_vgg16(21, stride) for name, stride in _STRIDES.items()},
    "voc-fcn8s-atonce": _on_vgg16(21, 8, skip_scales=(0.01, 0.0001)),
    "voc-fcn-alexnet": FCN(21, AlexNet(padding="reference"), 32, upsampling="fixed"),
    # 59 classes and background.
    **{f"pascalcontext-{name}": _on_vgg16(60, stride) for name, stride in _STRIDES.items()},
    # 33 semantic and 3 geometric classes.
    **{
        f"siftflow-{name}": JointFCN(36, VGG(padding="reference"), stride, upsampling="fixed", tasks=(33, 3))
        for name, stride in _STRIDES.items()
    },
    # Inputs: colour; HHA (Gupta et al. 2014); colour and, as a fourth channel, log depth; colour and HHA.
    "nyud-fcn32s-color": _on_vgg16(40, 32),
    "nyud-fcn32s-hha": _on_vgg16(40, 32),
    "nyud-fcn32s-color-d": _on_vgg16(40, 32),
    "nyud-fcn32s-color-hha": LateFusion(_on_vgg16(40, 32)),
}
