"""Every default of the project: what a training is made of, the presets, and what each data set wants.

A preset fixes what makes the network what it is. What is left open (0) comes from the data set's entry in
`DATASETS`, so that `fcn8s` works on every data set; `Config.resolved` fills it in. This module imports neither
JAX nor a data set, so the command line answers at once.
"""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fcn_jax.errors import InputError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class InputConfig:
    """What the network takes pixels to be: it sees (pixel - mean) / std, pixels in 0..255, channels in `order`.

    Weights are worth nothing with another input than they were trained with, so it travels with them.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    """of the colour channels, and of mean and std"""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """of ImageNet's training images, as torchvision's models are trained with (its values, times 255)"""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """likewise"""

    def __post_init__(self) -> None:
        _require(min(self.std) > 0, f"model.input.std is {self.std}; every value must be above 0")


# What the Caffe networks take: BGR, 0..255, the mean of ImageNet taken off (the reference's voc_layers.py).
CAFFE_INPUT = InputConfig("bgr", (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    head: Literal["fcn32s", "fcn16s", "fcn8s", "dilated"] = "fcn8s"
    """finest map that is scored: stride 32, 16 or 8; dilated: torchvision's FCN, a ResNet that stays at stride 8"""
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
    """what computes the feature maps"""
    fc_features: int = 4096
    """channels of VGG's and AlexNet's fc6 and fc7"""
    fc_kernel: int = 7
    """side of VGG's fc6 kernel, odd: 7 in the paper, 1 in light re-implementations"""
    padding: Literal["same", "reference"] = "same"
    """reference: the reference's border of 100 pixels (VGG, AlexNet), for weights trained with it; slower"""
    skip_scales: tuple[float, float] = (1.0, 1.0)
    """factors on pool4 and pool3 before their score layers"""
    upsampling: Literal["learned", "fixed"] = "learned"
    """transposed convolutions started bilinearly and learned, or bilinear for ever"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the computation; parameters, loss and upsampled logits are always float32"""
    output_stride: Literal[8, 16, 32] = 32
    """ResNets: of the last map; 16 and 8 keep the last stage or two at the resolution before, by dilation"""
    freeze_bn: bool = False
    """the backbone's batch norms use the statistics they start with and leave them as they are"""
    weights: str | None = None
    """file to start from, of whatever framework, or "imagenet": torchvision's for the backbone, downloaded"""
    init_from: Path | None = None
    """run directory (its best checkpoint) or file of an FCN to start from: 32s -> 16s -> 8s, or other classes"""
    allow: tuple[str, ...] = ()
    """beginnings of paths of what may be missing in the weights, left over or of another shape: backbone/fc"""
    input: InputConfig | None = None
    """what the network takes pixels to be; None: what its weights want, else ImageNet's RGB"""

    @property
    def settled_input(self) -> InputConfig:
        """`input`, or ImageNet's RGB where neither weights nor flags say anything."""
        return self.input or InputConfig()

    def __post_init__(self) -> None:
        _require(
            self.fc_features > 0,
            f"model.fc-features is {self.fc_features}; it is a number of channels, from 1",
        )
        _require(
            self.fc_kernel > 0 and self.fc_kernel % 2 == 1,
            f"model.fc-kernel is {self.fc_kernel}; it must be odd and from 1, to keep cells in place",
        )
        resnet = self.backbone.startswith("resnet")
        _require(
            resnet or self.head != "dilated",
            f"model.head is dilated, with {self.backbone}; it dilates ResNets alone, so take one of them",
        )
        _require(
            resnet or self.output_stride == 32,
            f"model.output-stride is {self.output_stride}; {self.backbone} has 32 alone, ResNets have 8, 16 and 32",
        )
        _require(
            resnet or self.backbone.endswith("_bn") or not self.freeze_bn,
            f"model.freeze-bn is set with {self.backbone}; ResNets and backbones named _bn have norms to freeze",
        )
        _require(
            self.weights is None or self.init_from is None,
            f"model.weights is {self.weights} and model.init-from {self.init_from}; a network starts from one "
            "of them: give None for the other",
        )
        _require(
            self.padding == "same" or self.backbone.startswith(("vgg", "alexnet")),
            f"model.padding is {self.padding!r} with {self.backbone}; only VGG and AlexNet have it, others take 'same'",
        )


@dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "shapes"
    """data set; `fcn-jax data list` shows them"""
    dir: Path | None = None
    """where its files are (only read); None: drawn or downloaded"""
    cache: Path | None = None
    """where prepared data goes; None: fcn_jax in the user's cache directory"""
    classes: Path | None = None
    """folder data: file with a class name a line; None: classes.txt in dir"""
    void: tuple[int, ...] = ()
    """folder data: label values that mean void, besides 255"""
    train_split: str = "train"
    """split to train on"""
    val_split: str = "val"
    """split to evaluate on"""
    decoded: Literal["never", "disk", "device"] = "never"
    """training images are decoded every time; once, into a file beside the prepared data; or once a start, and kept on
    every device (4 bytes a pixel of the largest image, times images). The batches are the same"""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images."""

    crop: int = 0
    """side of the square crop, pixels; 0: from the data set"""
    scale: tuple[float, float] = (0.0, 0.0)
    """range of the random zoom; 0 0: from the data set"""
    flip: bool = True
    """mirror every second image, left to right"""
    colour: float = 0.0
    """strength of brightness, contrast and saturation changes, 0 to 1"""

    def __post_init__(self) -> None:
        _require(
            self.crop >= 0,
            f"augment.crop is {self.crop}; it is a number of pixels, from 1",
        )
        _require(
            self.scale == (0, 0) or 0 < self.scale[0] <= self.scale[1] < math.inf,
            f"augment.scale is {self.scale}; give the smallest and the largest factor, both above 0 and finite",
        )
        _require(0 <= self.colour <= 1, f"augment.colour is {self.colour}; it lies within 0..1")


@dataclass(frozen=True)
class OptimConfig:
    """The loss and stochastic gradient descent."""

    learning_rate: float = 0.0
    """at its highest; 0: from the data set"""
    schedule: Literal["poly", "constant"] = "poly"
    """poly: falls to 0 at the last step as (1 - step / steps) ** power"""
    power: float = 0.9
    """exponent of the poly schedule"""
    warmup_steps: int = 0
    """steps over which the rate first rises linearly"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 5e-4
    """added to the gradient of convolution kernels, not of biases and norms"""
    clip_norm: float | None = None
    """largest norm of a step's gradient; None: not clipped"""
    reduction: Literal["mean", "sum"] = "mean"
    """cross-entropy averaged or summed over labelled pixels; the reference sums, with its tiny rates"""
    class_weights: tuple[float, ...] | None = None
    """a factor a class in the loss"""
    label_smoothing: float = 0.0
    """share of each label spread over all classes"""
    auxiliary_weight: float = 0.5
    """of the loss of the dilated head's second scores, on the stage before; torchvision's 0.5"""
    frozen: tuple[str, ...] = ()
    """beginnings of the paths of parameters that stay as they are: backbone/conv1 backbone/layer1 (their batch norms'
    statistics too only with model.freeze-bn)"""
    rate_factors: tuple[tuple[str, float], ...] = ()
    """beginnings of paths and factors on their rate: score 10 upscore 10; where several fit they multiply"""
    bias_factor: float = 1.0
    """factor on the rate of biases, the shifts of norms among them; 2 in the reference"""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        _require(0 <= rate < math.inf, f"optim.learning-rate is {rate}; give it above 0, and finite")
        _require(self.power >= 0, f"optim.power is {self.power}; it must not be negative")
        _require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; it lies within 0..1, below 1")
        _require(self.weight_decay >= 0, f"optim.weight-decay is {self.weight_decay}; it must not be negative")
        _require(self.warmup_steps >= 0, f"optim.warmup-steps is {self.warmup_steps}; it must not be negative")
        _require(
            self.clip_norm is None or self.clip_norm > 0,
            f"optim.clip-norm is {self.clip_norm}; give it above 0",
        )
        _require(
            0 <= self.label_smoothing < 1,
            f"optim.label-smoothing is {self.label_smoothing}; it lies within 0..1, below 1",
        )
        _require(
            self.class_weights is None or min(self.class_weights, default=-1) >= 0,
            f"optim.class-weights are {self.class_weights}; give one factor from 0 for each class",
        )
        _require(
            min((factor for _, factor in self.rate_factors), default=1) > 0,
            f"optim.rate-factors are {self.rate_factors}; factors lie above 0, and optim.frozen trains nothing at all",
        )
        _require(
            self.auxiliary_weight >= 0,
            f"optim.auxiliary-weight is {self.auxiliary_weight}; it must not be negative",
        )
        _require(self.bias_factor > 0, f"optim.bias-factor is {self.bias_factor}; give it above 0")


STAGES = ("fcn32s", "fcn16s", "fcn8s")  # each starts from the one before


@dataclass(frozen=True)
class Config:
    """A training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = -1
    """optimizer steps; 0: only score what a run starts from; -1: from the data set"""
    batch_size: int = 0
    """images a step, over all devices and accumulation steps; 0: from the data set"""
    accumulate: int = 1
    """parts a batch is computed in, one after the other, to save memory"""
    seed: int = 0
    """of parameters, order of the data, augmentation and dropout"""
    run_dir: Path | None = None
    """an existing one is resumed; None: a new runs/PRESET-DATA-TIME"""
    eval_every: int = 0
    """steps between evaluations of the val split; 0: from the data set"""
    checkpoint_every: int = 0
    """steps between checkpoints; 0: as eval-every"""
    keep: int = 2
    """latest checkpoints to keep, besides the best"""
    log_every: int = 10
    """steps between lines of metrics.jsonl"""
    eval_batch_size: int = 0
    """images computed at once in evaluation; 0: for each device 1 on CPUs, 8 on accelerators"""
    workers: int = 4
    """threads that decode images"""
    profile: int = 0
    """steps to write a trace of into RUN/profile, after the first few; 0: none"""
    dry_run: bool = False
    """train nothing: compile, print parameters, operations a step and memory, and write nothing to the run directory"""
    staged: bool = False
    """train 32s, then 16s from it, then 8s, each with these steps, in RUN/fcn32s, RUN/fcn16s, RUN/fcn8s"""
    stage_factors: tuple[float, float, float] = (1.0, 0.1, 0.1)
    """staged: factors on optim.learning-rate for 32s, 16s and 8s"""

    def __post_init__(self) -> None:
        _require(self.steps >= -1, f"steps is {self.steps}; give 0, or more to train")
        for name in ("batch_size", "eval_every", "checkpoint_every", "eval_batch_size"):
            value = getattr(self, name)
            _require(value >= 0, f"{name.replace('_', '-')} is {value}; give at least 1")
        _require(self.profile >= 0, f"profile is {self.profile}; it is a number of steps, 0 for none")
        for name in ("accumulate", "keep", "log_every", "workers"):
            value = getattr(self, name)
            _require(value >= 1, f"{name.replace('_', '-')} is {value}; it must be at least 1")
        _require(
            self.batch_size % self.accumulate == 0,
            f"batch-size {self.batch_size} cannot be split into {self.accumulate} equal parts; "
            "choose an accumulate that divides it",
        )
        _require(0 <= self.seed < 2**31, f"seed is {self.seed}; it lies within 0..2^31 - 1")
        _require(
            not self.staged or self.model.head in STAGES[1:],
            f"staged trains coarser networks before the one asked for, and model.head is {self.model.head}; "
            f"it must be one of {', '.join(STAGES[1:])}",
        )
        _require(
            min(self.stage_factors) > 0,
            f"stage-factors are {self.stage_factors}; every factor must be above 0",
        )

    def resolved(self) -> "Config":
        """The same with everything left open filled in from the data set's entry.

        Raises:
            InputError: the data set is unknown.
        """
        if self.data.name not in DATASETS:
            near = difflib.get_close_matches(self.data.name, DATASETS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"data set {self.data.name!r} is unknown, there are {', '.join(DATASETS)}{hint}")
        wants = DATASETS[self.data.name]
        steps = wants.steps if self.steps < 0 else self.steps
        eval_every = self.eval_every or max(min(wants.eval_every, steps), 1)
        from_scratch = self.model.weights is None and self.model.init_from is None
        return dataclasses.replace(
            self,
            # Weights have their own, known once they are read.
            model=dataclasses.replace(self.model, input=self.model.settled_input) if from_scratch else self.model,
            augment=dataclasses.replace(
                self.augment,
                crop=self.augment.crop or wants.crop,
                scale=self.augment.scale if any(self.augment.scale) else wants.scale,
            ),
            optim=dataclasses.replace(self.optim, learning_rate=self.optim.learning_rate or wants.learning_rate),
            steps=steps,
            batch_size=self.batch_size or wants.batch_size,
            eval_every=eval_every,
            checkpoint_every=self.checkpoint_every or eval_every,
        )


@dataclass(frozen=True)
class DatasetDefaults:
    """What a data set wants where a preset says nothing.

    Attributes:
        crop: side of the training crop, pixels.
        scale: range of the random zoom.
        steps: optimizer steps.
        batch_size: images a step.
        learning_rate: for a mean loss and momentum 0.9.
        eval_every: steps between evaluations.
    """

    crop: int
    scale: tuple[float, float]
    steps: int
    batch_size: int
    learning_rate: float
    eval_every: int


DATASETS = {
    # Sized for two CPU cores: ten minutes, set-up included. No zoom, which would blur the finest patterns away.
    "shapes": DatasetDefaults(crop=80, scale=(1.0, 1.0), steps=850, batch_size=8, learning_rate=0.1, eval_every=425),
    # Light enough for two cores (200 steps in a quarter of an hour) and small GPUs; 45 epochs of `trainaug`. With the
    # memory for it, 480 pixels are better: they hold nearly all of an image (375x500).
    "voc2012": DatasetDefaults(
        crop=256, scale=(0.5, 2.0), steps=60_000, batch_size=8, learning_rate=0.02, eval_every=4_000
    ),
    # 11 classes at 360x480; 20 epochs are 900 steps at 8 images a step.
    "camvid": DatasetDefaults(
        crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500
    ),
    "folder": DatasetDefaults(
        crop=224, scale=(0.5, 2.0), steps=3_000, batch_size=8, learning_rate=0.05, eval_every=500
    ),
}


def averaged(optim: OptimConfig, pixels: int) -> OptimConfig:
    """The optimizer for a loss averaged over `pixels` labelled pixels that does what `optim` does for their sum.

    The gradient becomes `pixels` times smaller, so the rate is multiplied by that number, and the decay, which is added
    to the gradient, divided by it: 1e-10 and 5e-4 over the sum of 500 * 500 pixels are 2.5e-5 and 2e-9 over their mean.
    """
    rate, decay = optim.learning_rate * pixels, optim.weight_decay / pixels
    return dataclasses.replace(optim, learning_rate=rate, weight_decay=decay, reduction="mean")


def summed(optim: OptimConfig, pixels: int) -> OptimConfig:
    """The inverse of `averaged`: for the sum over `pixels` pixels, what `optim` does for their mean."""
    rate, decay = optim.learning_rate / pixels, optim.weight_decay * pixels
    return dataclasses.replace(optim, learning_rate=rate, weight_decay=decay, reduction="sum")


def _reference(head: Any, skip_scales: tuple[float, float] = (1.0, 1.0), steps: int = 100_000) -> Config:
    """The reference's folder voc-HEAD: its solver.prototxt, net.py and solve.py, and its stages before.

    Whole images (none is larger than 500x500), one at a time, their pixels never changed. What differs: a smaller image
    lies anywhere in its window of 500x500, void around it; and they are the 10 582 of SBD and VOC 2012 that are not in
    val, where the reference had the 8 498 of SBD's train.
    """
    return Config(
        model=ModelConfig(
            head=head,
            backbone="vgg16",
            padding="reference",
            skip_scales=skip_scales,
            upsampling="fixed",
            weights="VGG_ILSVRC_16_layers.caffemodel",
        ),
        data=DataConfig("voc2012", train_split="trainaug"),
        augment=AugmentConfig(crop=500, scale=(1.0, 1.0), flip=False),
        optim=OptimConfig(
            learning_rate=1e-10,
            schedule="constant",
            momentum=0.99,
            weight_decay=5e-4,
            reduction="sum",
            bias_factor=2.0,
        ),
        steps=steps,
        batch_size=1,
        # At once all scores learn together; else 1e-10, 1e-12 and 1e-14.
        staged=head != "fcn32s" and skip_scales == (1.0, 1.0),
        stage_factors=(1.0, 1e-2, 1e-4),
    )


PRESETS = {
    "fcn32s": Config(model=ModelConfig(head="fcn32s")),
    "fcn16s": Config(model=ModelConfig(head="fcn16s")),
    "fcn8s": Config(model=ModelConfig(head="fcn8s")),
    # The reference's voc-fcn8s-atonce: skips scaled so that all three scores learn together. The scales fit features of
    # inputs in 0..255 without normalisation; features of order 1 (BatchNorm) are silenced by them: use fcn8s there.
    "fcn8s-atonce": Config(model=ModelConfig(head="fcn8s", skip_scales=(0.01, 0.0001))),
    # Rates are the data set's for the head and a tenth for the backbone, which has learned before.
    "fcn8s-pretrained": Config(
        model=ModelConfig(head="fcn8s", backbone="resnet50", weights="imagenet"),
        augment=AugmentConfig(colour=0.3),
        optim=OptimConfig(weight_decay=1e-4, warmup_steps=500, rate_factors=(("backbone", 0.1),)),
    ),
    "voc-fcn32s": _reference("fcn32s"),
    "voc-fcn16s": _reference("fcn16s"),
    "voc-fcn8s": _reference("fcn8s"),
    # The same but for the images' sizes: each counts as much as any other, where in the sum larger ones count more.
    "voc-fcn8s-mean": dataclasses.replace(
        _reference("fcn8s"), optim=averaged(_reference("fcn8s").optim, pixels=500 * 500)
    ),
    "voc-fcn8s-atonce": _reference("fcn8s", (0.01, 0.0001), steps=300_000),
    # The article names rate, decay and backbone; no momentum, so PyTorch's default, none. 60 epochs.
    "voc-resnet34": Config(
        model=ModelConfig(head="fcn8s", backbone="resnet34", weights="imagenet"),
        data=DataConfig("voc2012"),
        optim=OptimConfig(learning_rate=0.03, schedule="constant", momentum=0.0, weight_decay=1e-2),
        steps=11_000,
        batch_size=8,
        eval_every=1_000,
    ),
    # references/segmentation/train.py of torchvision: the auxiliary head alone learns ten times as fast. 30 epochs.
    # What differs: it scales the shorter side to 0.5 to 2 times 520 pixels, here an image to 0.5 to 2 times its size;
    # and its decay is on norms and biases too.
    "voc-dilated": Config(
        model=ModelConfig(head="dilated", backbone="resnet50", weights="imagenet"),
        data=DataConfig("voc2012", train_split="trainaug"),
        augment=AugmentConfig(crop=480, scale=(0.5, 2.0)),
        optim=OptimConfig(learning_rate=0.02, weight_decay=1e-4, rate_factors=(("aux_classifier", 10.0),)),
        steps=10_000,
        batch_size=32,
        eval_every=1_000,
    ),
}
_CAFFE = (
    "starts from VGG_ILSVRC_16_layers.caffemodel in the working directory "
    "(gist.github.com/ksimonyan/211839e770f7b538e2d8)"
)
# Scores are mean IU on VOC, in %, as published; times those of the paper, on a K40.
DESCRIPTIONS = {
    "fcn32s": "FCN-32s: scores at stride 32, one x32 upsampling",
    "fcn16s": "FCN-16s: pool4 fused in, then x16",
    "fcn8s": "FCN-8s: pool4 and pool3 fused in, then x8",
    "fcn8s-atonce": "FCN-8s with the reference's skip scales, which fit Caffe's VGG16 and its inputs of 0..255",
    "fcn8s-pretrained": "FCN-8s on a ResNet50 that knows ImageNet, today's augmentation; score and time not measured",
    "voc-fcn32s": f"the paper's FCN-32s; {_CAFFE}; 63.6 on seg11valid (reference README), three days on a K40",
    "voc-fcn16s": f"the paper's FCN-16s, 32s before it; {_CAFFE}; 65.0 on seg11valid, four days on a K40",
    "voc-fcn8s": f"the paper's FCN-8s, 32s and 16s before it; {_CAFFE}; 65.5 on seg11valid, five days on a K40",
    "voc-fcn8s-mean": "voc-fcn8s for a loss averaged over pixels: rate and decay to match, so score and time too",
    "voc-fcn8s-atonce": f"the paper's FCN-8s at once; {_CAFFE}; 65.4 on seg11valid (reference README), as long as 8s",
    "voc-resnet34": "an article's FCN-8s on a pretrained ResNet34, VOC's 1464 images: 53 to 56 on val, time unknown",
    "voc-dilated": (
        "torchvision's FCN on a dilated ResNet50: 60.5 on COCO's val (torchvision), 67.1 on VOC (mmseg, "
        "whose V100 does 23 images/s)"
    ),
}

# What decides the numbers a run computes; the rest (where, how often, how many threads) may change on resume.
DECISIVE = ("model", "augment", "optim", "steps", "batch_size", "accumulate", "seed", "data")
INCIDENTAL = ("data.dir", "data.cache", "data.classes", "data.val_split", "data.decoded")


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_json(kind: type, values: dict[str, Any]) -> Any:
    """The inverse of `to_json`: an instance of the dataclass `kind`.

    Raises:
        InputError: a field that `kind` does not have.
    """
    hints = typing.get_type_hints(kind)
    unknown = values.keys() - hints.keys()
    _require(
        not unknown,
        f"configuration has {sorted(unknown)}, which {kind.__name__} of this version does not know",
    )

    def restored(hint: Any, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return tuple(restored(Any, item) for item in value)
        for choice in (hint, *typing.get_args(hint)):  # `X | None` means X
            if choice is Path:
                return Path(value)
            if dataclasses.is_dataclass(choice):
                return from_json(choice, value)  # pyright: ignore[reportArgumentType]
        return value

    return kind(**{key: restored(hints[key], value) for key, value in values.items()})


def differences(old: Config, new: Config) -> list[str]:
    """Lines "name: old -> new" for all that differs and would change what a resumed run computes."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        items: dict[str, Any] = {}
        for key, value in values.items():
            items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return items

    before, after = flat(to_json(old)), flat(to_json(new))
    # A constant rate does not depend on where a run ends, so such a run may be prolonged.
    free = {*INCIDENTAL, "steps"} if old.optim.schedule == new.optim.schedule == "constant" else {*INCIDENTAL}
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"  # what may be None as a whole has no parts then
        for key in {**before, **after}
        if key.split(".")[0] in DECISIVE and key not in free and before.get(key) != after.get(key)
    ]
