"""The configuration of a training: loss and optimizer, the whole that decides its numbers, and its conduct."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fcn_jax.config.images import AugmentConfig, DataConfig, DataOptions
from fcn_jax.config.network import HEADS, ModelConfig
from fcn_jax.errors import require


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
    """factor of each class in the loss, at least 0, of all tasks in turn; None: 1 for every class"""
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
        require(rate is None or 0 < rate < math.inf, f"optim.learning-rate is {rate}; it must be above 0 and finite")
        require(0 <= self.power < math.inf, f"optim.power is {self.power}; it must be at least 0 and finite")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}; it must be at least 0 and below 1")
        require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight-decay is {self.weight_decay}; it must be at least 0 and finite",
        )
        require(
            self.warmup_steps is None or self.warmup_steps >= 0,
            f"optim.warmup-steps is {self.warmup_steps}; it must be at least 0",
        )
        require(
            all(step >= 0 for step in self.rate_cuts),
            f"optim.rate-cuts are {self.rate_cuts}; each must be a number of steps, at least 0",
        )
        require(
            self.clip_norm is None or 0 <= self.clip_norm < math.inf,
            f"optim.clip-norm is {self.clip_norm}; it must be above 0 and finite, or 0 for no clipping",
        )
        require(
            self.feature_scale is None or 0 < self.feature_scale < math.inf,
            f"optim.feature-scale is {self.feature_scale}; it must be above 0 and finite",
        )
        require(
            0 <= self.label_smoothing < 1,
            f"optim.label-smoothing is {self.label_smoothing}; it must be at least 0 and below 1",
        )
        require(
            self.class_weights != () and all(0 <= factor < math.inf for factor in self.class_weights or ()),
            f"optim.class-weights are {self.class_weights}; give one finite factor of at least 0 for each class",
        )
        require(
            all(0 < factor < math.inf for _, factor in self.rate_factors),
            f"optim.rate-factors are {self.rate_factors}; every factor must be above 0 and finite; to stop training "
            "a parameter, use optim.frozen",
        )
        require(
            0 <= self.auxiliary_weight < math.inf,
            f"optim.auxiliary-weight is {self.auxiliary_weight}; it must be at least 0 and finite",
        )
        require(
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
        require(self.steps is None or self.steps >= 0, f"steps is {self.steps}; it must be at least 0")
        former = (0 if self.steps is None else self.steps, *self.extend)
        require(
            all(before < after for before, after in pairwise(former)),
            f"extend is {' '.join(map(str, self.extend))} after steps {self.steps}, the flag's or the preset's; extend "
            "is the new number of all steps, those taken included, so each number must be above the one before it: "
            "give the --steps that the run was trained with, and a larger --extend",
        )
        require(
            self.batch_size is None or self.batch_size >= 1, f"batch-size is {self.batch_size}; it must be at least 1"
        )
        require(self.accumulate >= 1, f"accumulate is {self.accumulate}; it must be at least 1")
        require(
            self.batch_size is None or self.batch_size % self.accumulate == 0,
            f"batch-size {self.batch_size} cannot be split into {self.accumulate} equal parts; "
            "give an accumulate that divides it",
        )
        require(0 <= self.seed < 2**31, f"seed is {self.seed}; it must be within 0 to 2^31 - 1")
        require(
            not self.staged or self.model.head in HEADS[1:],
            f"staged trains coarser networks before the one asked for, and model.head is {self.model.head}; "
            f"it must be one of {', '.join(HEADS[1:])}",
        )
        require(
            all(0 < factor < math.inf for factor in self.stage_factors),
            f"stage-factors are {self.stage_factors}; every factor must be above 0 and finite",
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """The number of all steps before each extension, and at last the present one; `steps` has to be set."""
        assert self.steps is not None
        return (self.steps, *self.extend)


@dataclass(frozen=True)
class RunOptions:
    """The conduct of a run. These values change no number of the training.

    They may differ when it is resumed, except `data.val_split`, whose scores choose the best checkpoint.
    """

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
            require(value is None or value >= 1, f"{name.replace('_', '-')} is {value}; it must be at least 1")
        require(
            0 <= self.stuck_after < math.inf,
            f"stuck-after is {self.stuck_after}; it must be a finite number of seconds, 0 for never",
        )
        require(self.profile >= 0, f"profile is {self.profile}; it is a number of steps, 0 for no trace")
