"""The configuration of a training: its numbers (`Config`) and its conduct (`RunOptions`).

They are frozen dataclasses that check themselves. A field that is None is left open: `fcn_jax.data.defaults` fills it
with the default of the data set or of the network, so one preset works with all of them. The presets are in presets.py,
the defaults of a data set in its file in data/sources/. This module imports neither JAX nor a data set, so the command
line answers at once.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fcn_jax.errors import InputError

# Side in pixels of the tiles of large images. VGG16 has the largest maps per pixel: 64 channels at the image's size, of
# 256 bytes in float32. With the margin its tiles have 1536x1536 pixels, maps of up to 0.6 GB, and need 1.8 GB. The most
# that was found is 3.3 GB, for ResNet152 with output_stride 8 and its margin of 736 pixels.
TILE = 1024

HEADS = ("fcn32s", "fcn16s", "fcn8s")  # in staged training each network starts from the one before it


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


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
    def colour(self) -> slice | None:
        """The colour channels; None: there are none."""
        first = 0
        for name, count in self.channels:
            if name == "colour":
                return slice(first, first + count)
            first += count
        return None

    def __post_init__(self) -> None:
        _require(
            len(self.mean) == len(self.std) > 0,
            f"model.input.mean has {len(self.mean)} values and model.input.std {len(self.std)}; give one of each for "
            "every channel",
        )
        _require(
            all(0 <= channel < len(self.mean) for channel in self.log),
            f"model.input.log is {self.log}; each must be the number of a channel, 0 to {len(self.mean) - 1}",
        )
        _require(
            len(self.channels) > 0 and all(count >= 1 for _, count in self.channels),
            f"model.input.channels is {self.channels}; give at least one input, each with at least 1 channel",
        )
        _require(
            all(0 < value < math.inf for value in self.std),
            f"model.input.std is {self.std}; every value must be above 0 and finite",
        )
        _require(all(map(math.isfinite, self.mean)), f"model.input.mean is {self.mean}; every value must be finite")


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
    """reference: pad images by 100 pixels (VGG and AlexNet), as for training the reference's weights; slower"""
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
    def has_batch_norm(self) -> bool:
        """Whether the backbone has batch norms, which keep its features near 1 whatever the input."""
        return self.backbone.startswith("resnet") or self.backbone.endswith("_bn")

    def __post_init__(self) -> None:
        _require(self.fc_features > 0, f"model.fc-features is {self.fc_features}; it must be at least 1")
        _require(
            self.fc_kernel > 0 and self.fc_kernel % 2 == 1,
            f"model.fc-kernel is {self.fc_kernel}; it must be odd and at least 1, to keep cells in place",
        )
        _require(
            all(map(math.isfinite, self.skip_scales)),
            f"model.skip-scales are {self.skip_scales}; both factors must be finite",
        )
        resnet = self.backbone.startswith("resnet")
        _require(
            resnet or self.head != "dilated",
            f"model.head is dilated with the backbone {self.backbone}; only ResNets can be dilated, so choose one",
        )
        _require(
            resnet or self.output_stride == 32,
            f"model.output-stride is {self.output_stride} with the backbone {self.backbone}, which has 32 only; "
            "ResNets have 8, 16 and 32",
        )
        _require(
            self.has_batch_norm or not self.freeze_bn,
            f"model.freeze-bn is set, and {self.backbone} has no batch norm; choose a ResNet or a backbone named _bn",
        )
        _require(
            self.weights is None or self.init_from is None,
            f"model.weights is {self.weights} and model.init-from is {self.init_from}; a network starts from one of "
            "them: give None for the other",
        )
        _require(
            self.fusion == "late" or not self.init_streams,
            f"model.init-streams is given with model.fusion {self.fusion}; only late fusion has a network for each "
            "input: give --model.fusion late, or --model.init-from",
        )
        _require(
            not self.init_streams or (self.weights is None and self.init_from is None),
            "model.init-streams is given beside model.weights or model.init-from; a network starts from one of them: "
            "give None for the others",
        )
        _require(
            self.fusion == "early" or self.head != "dilated",
            "model.fusion is late with the head dilated; late fusion is of fcn32s, fcn16s or fcn8s: choose one of them",
        )
        _require(
            self.padding == "same" or self.backbone.startswith(("vgg", "alexnet")),
            f"model.padding is {self.padding!r} with the backbone {self.backbone}; only VGG and AlexNet have it, so "
            "give 'same'",
        )


@dataclass(frozen=True)
class DataConfig:
    """The images to train on and to score."""

    name: str = "shapes"
    """data set; `fcn-jax data list` shows them all"""
    void: tuple[int, ...] = ()
    """label values that mean void, besides 255 (only for the data sets `folder` and `voc`)"""
    map: tuple[str, ...] = ()
    """what values of masks mean, as 255=1 7=road 0=void 1-150=0 #800000=1 (only for `folder` and `voc`)"""
    train_split: str = "train"
    """split to train on"""
    hold_out: float = 0.0
    """share of train-split to set apart, 0 to below 1, as the split held-out, which is then evaluated on; 0: none"""
    inputs: tuple[str, ...] = ()
    """inputs of the data set to use, side by side, as colour depth (`nyud`) or bands (`folder`); none: the first one"""

    def __post_init__(self) -> None:
        _require(0 <= self.hold_out < 1, f"data.hold-out is {self.hold_out}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to the training images."""

    crop: int | None = None
    """side of the square crop in pixels, at least 1; None: the data set's default"""
    scale: tuple[float, float] | None = None
    """smallest and largest factor of the random zoom, above 0; None: the data set's default"""
    flip: bool = True
    """mirror each image left to right with probability 1/2"""
    colour: float = 0.0
    """strength of the random changes of brightness, contrast and saturation, 0 to 1"""

    def __post_init__(self) -> None:
        _require(self.crop is None or self.crop >= 1, f"augment.crop is {self.crop}; it must be at least 1 pixel")
        _require(
            self.scale is None or 0 < self.scale[0] <= self.scale[1] < math.inf,
            f"augment.scale is {self.scale}; give the smallest and the largest factor, both above 0 and finite",
        )
        _require(0 <= self.colour <= 1, f"augment.colour is {self.colour}; it must be within 0 to 1")


@dataclass(frozen=True)
class OptimConfig:
    """The loss and stochastic gradient descent."""

    learning_rate: float | None = None
    """highest learning rate, above 0; None: the data set's default times the network's factor"""
    schedule: Literal["poly", "constant"] = "poly"
    """learning rate after the warm-up; poly: it falls to 0 as (1 - step / steps) ** power, without the warm-up steps"""
    power: float = 0.9
    """exponent of the poly schedule, at least 0"""
    warmup_steps: int | None = None
    """number of first steps in which the learning rate rises linearly, at least 0; None: the network's default"""
    rate_cuts: tuple[int, ...] = ()
    """numbers of steps, at least 0, after each of which the learning rate is halved; on-divergence rewind adds some"""
    momentum: float = 0.9
    """momentum of the gradient descent, 0 to below 1"""
    weight_decay: float = 5e-4
    """factor of the L2 decay on kernels, at least 0; biases, batch norms and frozen parameters have none"""
    clip_norm: float | None = None
    """largest allowed norm of a step's gradient; 0: the gradient is not clipped; None: the network's default"""
    feature_scale: float | None = None
    """size of the features, above 0, in whose unit biases and score kernels learn; None: the network's default"""
    reduction: Literal["mean", "sum"] = "mean"
    """average the cross-entropy over the labelled pixels, or sum it, as the reference does with its tiny rates"""
    class_weights: tuple[float, ...] | None = None
    """factor of each class in the loss, at least 0; None: 1 for every class"""
    label_smoothing: float = 0.0
    """share of each label that is spread over all classes, 0 to below 1"""
    auxiliary_weight: float = 0.5
    """factor on the loss of the dilated head's auxiliary scores, made from the stage before the last, at least 0"""
    frozen: tuple[str, ...] = ()
    """beginnings of paths of parameters to leave untrained, as backbone/conv1 backbone/layer1; see model.freeze-bn"""
    rate_factors: tuple[tuple[str, float], ...] = ()
    """beginnings of paths, each with a factor above 0 on the learning rate, as score 10; all that fit are multiplied"""
    bias_factor: float = 1.0
    """factor on the learning rate of biases, batch norms' shifts included, above 0; the reference uses 2"""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        _require(rate is None or 0 < rate < math.inf, f"optim.learning-rate is {rate}; it must be above 0 and finite")
        _require(0 <= self.power < math.inf, f"optim.power is {self.power}; it must be at least 0 and finite")
        _require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; it must be at least 0 and below 1")
        _require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight-decay is {self.weight_decay}; it must be at least 0 and finite",
        )
        _require(
            self.warmup_steps is None or self.warmup_steps >= 0,
            f"optim.warmup-steps is {self.warmup_steps}; it must be at least 0",
        )
        _require(
            all(step >= 0 for step in self.rate_cuts),
            f"optim.rate-cuts are {self.rate_cuts}; each must be a number of steps, at least 0",
        )
        _require(
            self.clip_norm is None or 0 <= self.clip_norm < math.inf,
            f"optim.clip-norm is {self.clip_norm}; it must be above 0 and finite, or 0 for no clipping",
        )
        _require(
            self.feature_scale is None or 0 < self.feature_scale < math.inf,
            f"optim.feature-scale is {self.feature_scale}; it must be above 0 and finite",
        )
        _require(
            0 <= self.label_smoothing < 1,
            f"optim.label-smoothing is {self.label_smoothing}; it must be at least 0 and below 1",
        )
        _require(
            self.class_weights != () and all(0 <= factor < math.inf for factor in self.class_weights or ()),
            f"optim.class-weights are {self.class_weights}; give one finite factor of at least 0 for each class",
        )
        _require(
            all(0 < factor < math.inf for _, factor in self.rate_factors),
            f"optim.rate-factors are {self.rate_factors}; every factor must be above 0 and finite; to stop training "
            "a parameter, use optim.frozen",
        )
        _require(
            0 <= self.auxiliary_weight < math.inf,
            f"optim.auxiliary-weight is {self.auxiliary_weight}; it must be at least 0 and finite",
        )
        _require(
            0 < self.bias_factor < math.inf,
            f"optim.bias-factor is {self.bias_factor}; it must be above 0 and finite",
        )


@dataclass(frozen=True)
class Config:
    """The values that decide the numbers of a training. A run can be resumed only with the same ones, or extended."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int | None = None
    """number of optimizer steps, at least 0; 0: only score the network as it starts; None: the data set's default"""
    extend: tuple[int, ...] = ()
    """more steps for a run: the new number of all steps, above the former; for each extension one number, in order"""
    batch_size: int | None = None
    """number of images per step, over all devices and accumulated parts, at least 1; None: the data set's default"""
    accumulate: int = 1
    """number of parts in which a batch is computed, one after the other, to save memory, at least 1"""
    seed: int = 0
    """seed of the parameters, the order of the data, the augmentation and dropout, 0 to 2^31 - 1"""
    staged: bool = False
    """train FCN-32s, then each finer head from the one before, up to model.head, each for all steps, in RUN/HEAD"""
    stage_factors: tuple[float, float, float] = (1.0, 0.1, 0.1)
    """factors on optim.learning-rate in the stages FCN-32s, FCN-16s and FCN-8s of staged training, above 0"""

    def __post_init__(self) -> None:
        _require(self.steps is None or self.steps >= 0, f"steps is {self.steps}; it must be at least 0")
        former = (0 if self.steps is None else self.steps, *self.extend)
        _require(
            all(before < after for before, after in pairwise(former)),
            f"extend is {' '.join(map(str, self.extend))} after steps {self.steps}, the flag's or the preset's; extend "
            "is the new number of all steps, those taken included, so each number must be above the one before it: "
            "give the --steps that the run was trained with, and a larger --extend",
        )
        _require(
            self.batch_size is None or self.batch_size >= 1, f"batch-size is {self.batch_size}; it must be at least 1"
        )
        _require(self.accumulate >= 1, f"accumulate is {self.accumulate}; it must be at least 1")
        _require(
            self.batch_size is None or self.batch_size % self.accumulate == 0,
            f"batch-size {self.batch_size} cannot be split into {self.accumulate} equal parts; "
            "give an accumulate that divides it",
        )
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must be within 0 to 2^31 - 1")
        _require(
            not self.staged or self.model.head in HEADS[1:],
            f"staged trains coarser networks before the one asked for, and model.head is {self.model.head}; "
            f"it must be one of {', '.join(HEADS[1:])}",
        )
        _require(
            all(0 < factor < math.inf for factor in self.stage_factors),
            f"stage-factors are {self.stage_factors}; every factor must be above 0 and finite",
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """The number of all steps before each extension, and at last the present one; `steps` has to be set."""
        assert self.steps is not None
        return (self.steps, *self.extend)


@dataclass(frozen=True)
class DataOptions:
    """The places of the images, and how they are read."""

    dir: Path | None = None
    """folder or archive of the data set, which stays unchanged; None: the images are drawn or downloaded"""
    cache: Path | None = None
    """folder for prepared data, downloads and compiled programs; None: fcn_jax in the user's cache directory"""
    classes: Path | None = None
    """file with a class name, or name,red,green,blue, per line (for `folder voc coco labelme`); None: it is in dir"""
    label_suffix: str = ""
    """what the name of a mask has after that of its image, as _mask (only for the data sets `folder` and `voc`)"""
    val_split: str | None = None
    """split to evaluate on; None: held-out if data.hold-out is above 0, else val"""
    decoded: Literal["never", "disk", "device"] = "never"
    """where to keep decoded training images: disk: data.cache; device: 4 bytes * images * largest size on each"""


@dataclass(frozen=True)
class RunOptions:
    """The conduct of a run. These values change no number of the training, and may differ when it is resumed."""

    data: DataOptions = field(default_factory=DataOptions)
    run_dir: Path | None = None
    """run directory, or s3://BUCKET/FOLDER; an existing run there is resumed; None: a new runs/PRESET-DATA-TIME"""
    eval_every: int | None = None
    """number of steps between evaluations of the val split, at least 1; None: the data set's default"""
    checkpoint_every: int | None = None
    """number of steps between checkpoints, at least 1; None: the same as eval-every"""
    keep: int = 2
    """number of latest checkpoints to keep, besides the best, at least 1"""
    log_every: int = 10
    """number of steps between lines of metrics.jsonl, at least 1"""
    eval_batch_size: int | None = None
    """number of images computed at once in evaluation, at least 1; None: 1 per CPU, 8 per accelerator"""
    workers: int = 4
    """number of threads that decode images, at least 1"""
    on_bad_example: Literal["stop", "skip"] = "stop"
    """what to do with examples whose files are missing or damaged when data is prepared; skip: list and leave out"""
    on_divergence: Literal["stop", "rewind"] = "stop"
    """what to do if the loss is no longer finite; rewind: go back to the last checkpoint and halve the learning rate"""
    stuck_after: float = 1800.0
    """seconds without a step or a batch of an evaluation after which the process ends with its stacks; 0: never"""
    profile: int = 0
    """number of steps to trace into RUN/profile, from the fourth step on; 0: no trace"""
    dry_run: bool = False
    """print parameters, operations and memory of a step; train nothing; images and weights may be missing"""

    def __post_init__(self) -> None:
        for name in ("eval_every", "checkpoint_every", "eval_batch_size", "keep", "log_every", "workers"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name.replace('_', '-')} is {value}; it must be at least 1")
        _require(
            0 <= self.stuck_after < math.inf,
            f"stuck-after is {self.stuck_after}; it must be a finite number of seconds, 0 for never",
        )
        _require(self.profile >= 0, f"profile is {self.profile}; it is a number of steps, 0 for no trace")
