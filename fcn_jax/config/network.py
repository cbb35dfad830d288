"""The configuration of the network: its input, its architecture, and the weights that it starts from."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fcn_jax.errors import require

# Side in pixels of the tiles of large images. VGG16 has the largest maps per pixel: 64 channels at the image's size, of
# 256 bytes in float32. With the margin its tiles have 1536x1536 pixels, maps of up to 0.6 GB, and need 1.8 GB. The most
# that was found is 3.3 GB, for ResNet152 with output_stride 8 and its margin of 736 pixels.
TILE = 1024

HEADS = ("fcn32s", "fcn16s", "fcn8s")  # in staged training each network starts from the one before it


@dataclass(frozen=True)
class InputConfig:
    """Input of the network: (pixel - mean) / std for each channel, with the channels of the inputs side by side.

    Weights work only with the input that they were trained with, so it is stored beside them. A network that starts
    from such weights takes the stored input, and flags that differ from it are an error, unless `allow` names them,
    as "input/mean". The defaults are for networks on colour without a stored input. What other inputs have is in the
    file of their data set.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    """order of the colour channels, and of their values of mean and std; other inputs keep the order of their files"""
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    """mean of each channel in the unit of its samples (colour: 0 to 255), in `order`; default: torchvision's"""
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    """standard deviation of each channel, above 0, in the unit of mean and in `order`; default: torchvision's"""
    log: tuple[int, ...] = ()
    """numbers of channels, from 0, that are log(max(sample, 1)) before mean and std, as depth in the reference"""
    channels: tuple[tuple[str, int], ...] = (("colour", 3),)
    """name and number of channels of each input, in the order of data.inputs; the data set gives them"""
    dtype: Literal["uint8", "uint16"] = "uint8"
    """type of the samples, uint16 if any input has more than 8 bits; the data set gives it"""

    @property
    def num_channels(self) -> int:
        """Number of channels of all inputs."""
        return sum(count for _, count in self.channels)

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of a pixel of an image."""
        return self.num_channels * (2 if self.dtype == "uint16" else 1)

    @property
    def is_colour_alone(self) -> bool:
        """Whether colour is the only input, so that any photograph is an image."""
        return self.channels == InputConfig().channels

    @property
    def colour(self) -> slice | None:
        """The colour channels; None: there are none."""
        first = 0
        for name, count in self.channels:
            if name == "colour":
                return slice(first, first + count)
            first += count
        return None

    def __post_init__(self) -> None:
        require(
            len(self.mean) == len(self.std) > 0,
            f"model.input.mean has {len(self.mean)} values and model.input.std {len(self.std)}; give one of each for "
            "every channel",
        )
        require(
            all(0 <= channel < len(self.mean) for channel in self.log),
            f"model.input.log is {self.log}; each must be the number of a channel, 0 to {len(self.mean) - 1}",
        )
        require(
            len(self.channels) > 0 and all(count >= 1 for _, count in self.channels),
            f"model.input.channels is {self.channels}; give at least one input, each with at least 1 channel",
        )
        require(
            all(0 < value < math.inf for value in self.std),
            f"model.input.std is {self.std}; every value must be above 0 and finite",
        )
        require(all(map(math.isfinite, self.mean)), f"model.input.mean is {self.mean}; every value must be finite")


# Input of the Caffe networks: BGR, 0 to 255, the mean of ImageNet subtracted (the reference's voc_layers.py).
CAFFE_INPUT = InputConfig("bgr", (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the network, and the weights that it starts from."""

    head: Literal["fcn32s", "fcn16s", "fcn8s", "dilated"] = "fcn8s"
    """finest feature map that is scored: stride 32, 16 or 8; dilated: torchvision's FCN, on a ResNet of stride 8"""
    backbone: Literal[
        "alexnet",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
        "googlenet",
        "googlenet_bn",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
    ] = "resnet34"
    """network that computes the feature maps"""
    fc_features: int = 4096
    """number of channels of fc6 and fc7 (VGG and AlexNet), at least 1"""
    fc_kernel: int = 7
    """side of the fc6 kernel (VGG) in cells, odd: 7 in the paper, 1 in light re-implementations"""
    padding: Literal["same", "reference"] = "same"
    """reference: images padded by 100, as the reference's FCNs (VGG, AlexNet; slower); pooling without (GoogLeNet)"""
    skip_scales: tuple[float, float] = (1.0, 1.0)
    """factors on pool4 and pool3 before their score layers; at-once training in the reference uses 0.01 and 0.0001"""
    upsampling: Literal["learned", "fixed"] = "learned"
    """learned: transposed convolutions that start as bilinear filters and are trained; fixed: bilinear throughout"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type of the computation; parameters, the loss and the upsampled logits are always float32"""
    output_stride: Literal[8, 16, 32] = 32
    """stride of the last feature map (ResNets); at 16 or 8 the last stages keep the resolution and dilate kernels"""
    freeze_bn: bool = False
    """keep the statistics that the backbone's batch norms start with, and normalise with them in training too"""
    weights: str | None = None
    """file of weights to start from (.pth, .safetensors, .caffemodel, .h5); imagenet: official weights, downloaded"""
    init_from: Path | None = None
    """run directory (its best checkpoint) or weights file of an FCN to start from; its head and classes may differ"""
    fusion: Literal["early", "late"] = "early"
    """how several inputs are joined; early: as channels of one network; late: a network each, and their mean scores"""
    init_streams: tuple[Path, ...] = ()
    """run directories or weights files for the networks of late fusion to start from, one for each of data.inputs"""
    allow: tuple[str, ...] = ()
    """beginnings of paths of what may be missing, extra or different in the weights, as backbone/fc or input/mean"""
    input: InputConfig | None = None
    """input of the network; None: what its weights were trained with, else ImageNet's RGB"""

    @property
    def input_or_default(self) -> InputConfig:
        """`input`, or ImageNet's RGB if neither the weights nor a flag sets it."""
        return self.input or InputConfig()

    @property
    def start_places(self) -> tuple[Path, ...]:
        """The run directories or files that the network starts from, by `init_streams` or `init_from`."""
        return self.init_streams or ((self.init_from,) if self.init_from else ())

    @property
    def has_batch_norm(self) -> bool:
        """Whether the backbone has batch norms, which keep its features near 1 whatever the input."""
        return self.backbone.startswith("resnet") or self.backbone.endswith("_bn")

    def __post_init__(self) -> None:
        require(self.fc_features > 0, f"model.fc-features is {self.fc_features}; it must be at least 1")
        require(
            self.fc_kernel > 0 and self.fc_kernel % 2 == 1,
            f"model.fc-kernel is {self.fc_kernel}; it must be odd and at least 1, to keep cells in place",
        )
        require(
            all(map(math.isfinite, self.skip_scales)),
            f"model.skip-scales are {self.skip_scales}; both factors must be finite",
        )
        resnet = self.backbone.startswith("resnet")
        require(
            resnet or self.head != "dilated",
            f"model.head is dilated with the backbone {self.backbone}; only ResNets can be dilated, so choose one",
        )
        require(
            resnet or self.output_stride == 32,
            f"model.output-stride is {self.output_stride} with the backbone {self.backbone}, which has 32 only; "
            "ResNets have 8, 16 and 32",
        )
        require(
            self.head != "dilated" or self.output_stride in (8, 32),
            f"model.output-stride is {self.output_stride} with the head dilated, which has 8 always; leave it out",
        )
        require(
            self.has_batch_norm or not self.freeze_bn,
            f"model.freeze-bn is set, and {self.backbone} has no batch norm; choose a ResNet or a backbone named _bn",
        )
        require(
            self.weights is None or self.init_from is None,
            f"model.weights is {self.weights} and model.init-from is {self.init_from}; a network starts from one of "
            "them: give None for the other",
        )
        require(
            self.fusion == "late" or not self.init_streams,
            f"model.init-streams is given with model.fusion {self.fusion}; only late fusion has a network for each "
            "input: give --model.fusion late, or --model.init-from",
        )
        require(
            not self.init_streams or (self.weights is None and self.init_from is None),
            "model.init-streams is given beside model.weights or model.init-from; a network starts from one of them: "
            "give None for the others",
        )
        require(
            self.fusion == "early" or self.head != "dilated",
            "model.fusion is late with the head dilated; late fusion is of fcn32s, fcn16s or fcn8s: choose one of them",
        )
        require(
            self.padding == "same" or not resnet,
            f"model.padding is {self.padding!r} with the backbone {self.backbone}; ResNets have no other than 'same', "
            "so give that",
        )
