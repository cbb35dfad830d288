"""Part 2: networks that differ in their upsampling alone, trained with the same seeds, data order and budget.

The table `VARIANTS` is the experiment; a new variant is a new line in it. Nothing here is in the package: `Studied`
overrides the one method of `FCN` that upsamples.
"""

import contextlib
import csv
import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from settings import Setting, even, tiled
from tqdm import tqdm

from fcn_jax.config import AugmentConfig, Config, DataConfig, InputConfig, OptimConfig
from fcn_jax.data import dataset as datasets
from fcn_jax.data.augment import normalise
from fcn_jax.data.batches import place, train_batches
from fcn_jax.data.dataset import Dataset, Example
from fcn_jax.inference.evaluate import evaluate
from fcn_jax.inference.segment import make_forward
from fcn_jax.layers import ConvTranspose, bilinear_init, upsample_bilinear
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.runs.run_dir import write_whole
from fcn_jax.training.loop import make_step
from fcn_jax.training.state import init_state

# ------------------------------------------------------------------------------------------- ways to upsample
# (values, factor, size, name) -> float[batch, *size, channels]; size is at most factor times that of the values.

Upsampling = Callable[[jax.Array, int, tuple[int, int], str], jax.Array]


def learned(rule: Callable[[int], Setting], init: Callable[..., Any] = bilinear_init) -> Upsampling:
    """A transposed convolution whose kernel is learned, from `init` on."""

    def upsample(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
        kernel, stride, padding, output_padding = rule(factor)
        layer = ConvTranspose(
            values.shape[-1], (kernel, kernel), (stride, stride), padding, output_padding,
            use_bias=False, kernel_init=init, name=name,
        )  # fmt: skip
        return layer(values)[:, : size[0], : size[1]]

    return upsample


def fixed(rule: Callable[[int], Setting]) -> Upsampling:
    """The same with a bilinear kernel that is not learned."""

    def upsample(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
        kernel, stride, padding, _ = rule(factor)
        return upsample_bilinear(values, stride, kernel_size=kernel, padding=padding)[:, : size[0], : size[1]]

    return upsample


def resize(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
    """Bilinear resizing with repeated borders, as in torchvision's FCN."""
    batch, height, width, channels = values.shape
    full = (batch, height * factor, width * factor, channels)
    return jax.image.resize(values, full, "bilinear")[:, : size[0], : size[1]]


def unit_gain(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Bilinear for kernel = stride, scaled so that a constant keeps its mean: four times as large for even kernels."""
    kernel = bilinear_init(key, shape, dtype)
    return kernel * (shape[0] * shape[1] * shape[3] / kernel.sum())


class Studied(FCN):
    """An FCN with a given upsampling in place of the derived one."""

    way: Upsampling | None = None

    def upsample(self, x: FeatureMap, to: FeatureMap, name: str) -> FeatureMap:
        if self.way is None:
            return super().upsample(x, to, name)
        return to.replace(values=self.way(x.clear_outside(), x.stride // to.stride, to.shape, name))


# --------------------------------------------------------------------------------------------------- variants


@dataclass(frozen=True)
class Variant:
    """A line of the table.

    Attributes:
        way: how scores are upsampled; None: the transposed convolutions that `fcn_jax.models.fcn.alignment` derives.
        stride: of the finest scores: 8, 16 or 32.
        backbone: a name of `BACKBONES`; None: the study's own.
        optim: what differs from the study's optimizer.
    """

    way: Upsampling | None = None
    stride: int = 8
    backbone: str | None = None
    optim: dict[str, float] = dataclasses.field(default_factory=dict)


ARTICLE = {"learning_rate": 0.03, "weight_decay": 1e-2}  # the decay also pulls on the upsampling kernels

VARIANTS = {
    "a": Variant(learned(even)),
    "b": Variant(learned(tiled)),
    "b-scaled": Variant(learned(tiled, unit_gain)),
    "b-fixed": Variant(fixed(tiled)),
    "a-fixed": Variant(fixed(even)),
    "a-random": Variant(learned(even, nn.initializers.lecun_normal())),
    "resize": Variant(resize),
    "aligned": Variant(),
    "aligned-16s": Variant(stride=16),
    "aligned-32s": Variant(stride=32),
    "a-article": Variant(learned(even), optim=ARTICLE),
    "b-article": Variant(learned(tiled), optim=ARTICLE),
    "b-rate": Variant(learned(tiled), optim={"learning_rate": ARTICLE["learning_rate"]}),
    "b-decay": Variant(learned(tiled), optim={"weight_decay": ARTICLE["weight_decay"]}),
    "a-resnet34": Variant(learned(even), backbone="resnet34"),
    "aligned-resnet34": Variant(backbone="resnet34"),
}


# ------------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Study:
    """What all variants share."""

    data: str
    backbone: str | nn.Module
    steps: int
    eval_every: int
    variants: tuple[str, ...]
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    seeds: tuple[int, ...] = (0, 1, 2)


STUDIES = {
    # Sized for two CPU cores: 16 variants, three seeds each, in an hour.
    "shapes": Study("shapes", "resnet18", steps=300, eval_every=100, variants=tuple(VARIANTS)),
    # The decisive pair, sized for two CPU cores.
    "camvid": Study(
        "camvid", "resnet18", steps=300, eval_every=100, variants=("a", "b"), augment=AugmentConfig(crop=128)
    ),
    # Everything, for a GPU.
    "camvid-full": Study("camvid", "resnet34", steps=3000, eval_every=500, variants=tuple(VARIANTS)),
    # Does it run?
    "smoke": Study(
        "shapes", ResNet((1, 1, 1, 1), width=8), steps=2, eval_every=2, variants=("a", "b"),
        augment=AugmentConfig(crop=32), seeds=(0,),
    ),
}  # fmt: skip

COLUMNS = (
    "study", "variant", "seed", "step", "train_loss", "val_loss", "mean_iu", "pixel_accuracy", "checkerboard",
    "seconds",
)  # fmt: skip
Row = dict[str, str]


def run_study(name: str, out: Path, data_dir: Path | None, cache: Path | None, only: tuple[str, ...]) -> None:
    """Trains what results.csv lacks, and adds the rows of a run to it as soon as the run is over."""
    study = STUDIES[name]
    dataset = datasets.prepare(study.data, data_dir, cache)
    file = out / "results.csv"
    done = {(row["study"], row["variant"], int(row["seed"])) for row in read(file)}
    # Seed by seed, so that all variants can be compared early.
    runs = [(variant, seed) for seed in study.seeds for variant in only or study.variants]
    for variant, seed in runs:
        if (name, variant, seed) in done:
            print(f"{name} {variant} seed {seed}: done before")
            continue
        rows = [{"study": name, "variant": variant, **row} for row in train(study, variant, seed, dataset)]
        write(file, [*read(file), *rows])
        print(f"{name} {variant} seed {seed}: mean IU {rows[-1]['mean_iu']}, {rows[-1]['seconds']} s", flush=True)


def configuration(study: Study, variant: Variant, seed: int) -> Config:
    """The training of a variant; what is not said here comes from the data set's entry in `fcn_jax.config`."""
    data = DataConfig(study.data)
    optim = OptimConfig(**variant.optim)  # pyright: ignore[reportArgumentType]
    return Config(data=data, augment=study.augment, optim=optim, steps=study.steps, seed=seed).resolved()


def network(study: Study, variant: Variant, num_classes: int) -> Studied:
    """The network of a variant."""
    backbone = variant.backbone or study.backbone
    backbone = BACKBONES[backbone]() if isinstance(backbone, str) else backbone
    return Studied(num_classes, backbone, variant.stride, way=variant.way)


def train(study: Study, name: str, seed: int, dataset: Dataset) -> Iterator[Row]:
    """One run; yields a row at every evaluation."""
    variant = VARIANTS[name]
    config = configuration(study, variant, seed)
    num_classes = len(dataset.class_names)
    model = network(study, variant, num_classes)
    step_fn = make_step(model, config)
    forward = make_forward(model, InputConfig())
    state = init_state(model, config)
    here = NamedSharding(Mesh(np.array(jax.local_devices()[:1]), ("data",)), PartitionSpec("data"))
    source, val = dataset.source("train"), dataset.source("val")
    batches = train_batches(source, dataset.max_size, config, 0, here)
    began, losses = time.perf_counter(), []
    progress = tqdm(range(1, study.steps + 1), f"{study.data} {name} seed {seed}", disable=None)
    with contextlib.closing(progress):
        for step in progress:
            state, metrics = step_fn(state, next(batches))
            losses.append(metrics["loss"])
            if step % study.eval_every == 0 or step == study.steps:
                result = evaluate(forward, state.variables, val, num_classes, jax.local_device_count(), config.workers)
                yield {
                    "seed": f"{seed}",
                    "step": f"{step}",
                    "train_loss": f"{np.mean(jax.device_get(losses)):.4f}",
                    "val_loss": f"{result.loss:.4f}",
                    "mean_iu": f"{result.metrics.mean_iu:.4f}",
                    "pixel_accuracy": f"{result.metrics.pixel_accuracy:.4f}",
                    "checkerboard": f"{checkerboard(first_logits(model, state.variables, val), model.stride):.4f}",
                    "seconds": f"{time.perf_counter() - began:.0f}",
                }
                losses.clear()


def first_logits(model: FCN, variables: Any, val: Sequence[Example], count: int = 16) -> np.ndarray:
    """Scores of the first images, cut to the size that all of them and a whole number of cells have."""
    examples = [val[index] for index in range(min(count, len(val)))]
    sides = zip(*(example.label.shape for example in examples), strict=True)
    height, width = (min(side) // model.stride * model.stride for side in sides)
    cut = [e._replace(image=e.image[:height, :width], label=e.label[:height, :width]) for e in examples]
    batch = place(cut, len(cut), (height, width))
    return np.asarray(_logits(model, variables, batch.image), np.float64)


@partial(jax.jit, static_argnums=0)
def _logits(model: FCN, variables: Any, images: Any) -> jax.Array:
    return model.apply(variables, normalise(images, InputConfig()))


def checkerboard(logits: np.ndarray, stride: int) -> float:
    """Checkerboard energy of float64[batch, height, width, classes]: how unevenly it changes over the places of a cell.

    For each place r = 0 .. s-1 of the grid of stride s: the mean square of the difference between a pixel at place r
    and the next one. The energy is the standard deviation of these s values over their mean, rows and columns
    averaged: 0 where no place is different, sqrt(s - 1) where everything changes at one place, as between tiles.
    """
    energies = []
    for axis in (1, 2):
        lines = np.moveaxis(logits, axis, 0)
        change = np.square(np.roll(lines, -1, axis=0) - lines).mean(axis=(1, 2, 3))
        change[-1] = np.nan  # the last pixel has no next one
        places = np.nanmean(change.reshape(-1, stride), axis=0)
        energies.append(places.std() / max(places.mean(), 1e-30))
    return float(np.mean(energies))


def read(file: Path) -> list[Row]:
    """The rows of results.csv; none where there is no such file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write(file: Path, rows: list[Row]) -> None:
    """All rows, under a temporary name first: a kill leaves the file before or the file after."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(file, text.getvalue())
