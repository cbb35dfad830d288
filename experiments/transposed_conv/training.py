"""Part 2: networks that differ in their upsampling alone, trained with the same seeds, order of images and budget.

A new variant is a new line in the table `VARIANTS`. `StudiedFCN` overrides the one method of `FCN` that upsamples.
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
from settings import Setting, choose_even, choose_tiled
from tqdm import tqdm

from fcn_jax.config import AugmentConfig, Config, DataConfig, InputConfig, OptimConfig, RunOptions
from fcn_jax.data.augment import normalise
from fcn_jax.data.batches import train_batches
from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.data.dataset import Dataset, Example, prepare
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.inference.evaluate import evaluate
from fcn_jax.inference.segment import make_forward
from fcn_jax.layers import ConvTranspose, bilinear_init, upsample_bilinear
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN
from fcn_jax.models.feature_map import FeatureMap
from fcn_jax.runtime.files import write_atomically
from fcn_jax.training.state import init_state
from fcn_jax.training.step import make_step

# (values, factor, size, name) -> float[batch, *size, channels]; size is at most factor times the size of values.
Upsampling = Callable[[jax.Array, int, tuple[int, int], str], jax.Array]


def make_learned(rule: Callable[[int], Setting], init: Callable[..., Any] = bilinear_init) -> Upsampling:
    """Make an upsampling by a transposed convolution whose kernel starts from `init` and is learned.

    Args:
        rule: chooses kernel, stride and padding for a factor.
        init: initializes the kernel.
    """

    def upsample(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
        kernel, stride, padding, output_padding = rule(factor)
        layer = ConvTranspose(
            values.shape[-1], (kernel, kernel), (stride, stride), padding, output_padding,
            use_bias=False, kernel_init=init, name=name,
        )  # fmt: skip
        return layer(values)[:, : size[0], : size[1]]

    return upsample


def make_fixed(rule: Callable[[int], Setting]) -> Upsampling:
    """Make an upsampling by a transposed convolution with a bilinear kernel that is not learned."""

    def upsample(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
        kernel, stride, padding, _ = rule(factor)
        return upsample_bilinear(values, stride, kernel_size=kernel, padding=padding)[:, : size[0], : size[1]]

    return upsample


def resize(values: jax.Array, factor: int, size: tuple[int, int], name: str) -> jax.Array:
    """Upsample bilinearly with repeated borders, as torchvision's FCN does."""
    batch, height, width, channels = values.shape
    full = (batch, height * factor, width * factor, channels)
    return jax.image.resize(values, full, "bilinear")[:, : size[0], : size[1]]


def init_unit_gain(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initialize a kernel whose size is the stride: bilinear, scaled so that a constant keeps its mean.

    Even kernels become four times as large.
    """
    kernel = bilinear_init(key, shape, dtype)
    return kernel * (shape[0] * shape[1] * shape[3] / kernel.sum())


class StudiedFCN(FCN):
    """An FCN with a given upsampling.

    Attributes:
        way: upsamples the scores; None: as `FCN` does.
    """

    way: Upsampling | None = None

    def upsample(self, x: FeatureMap, to: FeatureMap, name: str) -> FeatureMap:
        """Upsample scores to the finer grid of `to`."""
        if self.way is None:
            return super().upsample(x, to, name)
        return to.replace(values=self.way(x.clear_outside(), x.stride // to.stride, to.shape, name))


@dataclass(frozen=True)
class Variant:
    """The differences of a network from the others.

    Attributes:
        way: upsamples the scores; None: transposed convolutions as `fcn_jax.models.fcn.alignment` derives them.
        stride: stride of the finest scores: 8, 16 or 32.
        backbone: a name of `BACKBONES`; None: the study's backbone.
        optim: values of `OptimConfig` that differ from its defaults.
    """

    way: Upsampling | None = None
    stride: int = 8
    backbone: str | None = None
    optim: dict[str, float] = dataclasses.field(default_factory=dict)


ARTICLE = {"learning_rate": 0.03, "weight_decay": 1e-2}  # the decay applies to the upsampling kernels too

VARIANTS = {
    "a": Variant(make_learned(choose_even)),
    "b": Variant(make_learned(choose_tiled)),
    "b-scaled": Variant(make_learned(choose_tiled, init_unit_gain)),
    "b-fixed": Variant(make_fixed(choose_tiled)),
    "a-fixed": Variant(make_fixed(choose_even)),
    "a-random": Variant(make_learned(choose_even, nn.initializers.lecun_normal())),
    "resize": Variant(resize),
    "aligned": Variant(),
    "aligned-16s": Variant(stride=16),
    "aligned-32s": Variant(stride=32),
    "a-article": Variant(make_learned(choose_even), optim=ARTICLE),
    "b-article": Variant(make_learned(choose_tiled), optim=ARTICLE),
    "b-rate": Variant(make_learned(choose_tiled), optim={"learning_rate": ARTICLE["learning_rate"]}),
    "b-decay": Variant(make_learned(choose_tiled), optim={"weight_decay": ARTICLE["weight_decay"]}),
    "a-resnet34": Variant(make_learned(choose_even), backbone="resnet34"),
    "aligned-resnet34": Variant(backbone="resnet34"),
}


@dataclass(frozen=True)
class Study:
    """The values that all variants share, and the names of the variants.

    Attributes:
        data: name of the data set.
        backbone: a name of `BACKBONES`, or a module.
        steps: number of training steps.
        eval_every: number of steps between evaluations.
        variants: names of `VARIANTS`.
        augment: random changes to the images.
        seeds: seeds of the runs of each variant.
    """

    data: str
    backbone: str | nn.Module
    steps: int
    eval_every: int
    variants: tuple[str, ...]
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    seeds: tuple[int, ...] = (0, 1, 2)


STUDIES = {
    # Sized for two CPU cores: 16 variants with three seeds each take an hour.
    "shapes": Study("shapes", "resnet18", steps=300, eval_every=100, variants=tuple(VARIANTS)),
    # Settings (a) and (b) alone, sized for two CPU cores.
    "camvid": Study(
        "camvid", "resnet18", steps=300, eval_every=100, variants=("a", "b"), augment=AugmentConfig(crop=128)
    ),
    # Everything, for a GPU.
    "camvid-full": Study("camvid", "resnet34", steps=3000, eval_every=500, variants=tuple(VARIANTS)),
    # Shows that everything runs.
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
    """Train the runs that results.csv lacks, and add the rows of each to it when it ends.

    Args:
        name: a name of `STUDIES`.
        out: folder of results.csv.
        data_dir: folder of the data set's files; None if it needs none.
        cache: folder for prepared data; None: the usual one.
        only: names of the variants to train; none: all of the study.
    """
    study = STUDIES[name]
    dataset = prepare(study.data, data_dir, cache)
    file = out / "results.csv"
    done = {(row["study"], row["variant"], int(row["seed"])) for row in read_rows(file)}
    # All variants with one seed before the next seed, so that they can be compared early.
    runs = [(variant, seed) for seed in study.seeds for variant in only or study.variants]
    for variant, seed in runs:
        if (name, variant, seed) in done:
            print(f"{name} {variant} seed {seed}: already done")
            continue
        rows = [{"study": name, "variant": variant, **row} for row in train(study, variant, seed, dataset)]
        write_rows(file, [*read_rows(file), *rows])
        print(f"{name} {variant} seed {seed}: mean IU {rows[-1]['mean_iu']}, {rows[-1]['seconds']} s", flush=True)


def make_config(study: Study, variant: Variant, seed: int) -> Config:
    """Make the configuration of a run; what is left open comes from the data set's defaults."""
    data = DataConfig(study.data)
    optim = OptimConfig(**variant.optim)  # pyright: ignore[reportArgumentType]
    return fill_config(Config(data=data, augment=study.augment, optim=optim, steps=study.steps, seed=seed))


def build_network(study: Study, variant: Variant, num_classes: int) -> StudiedFCN:
    """Build the network of a variant."""
    backbone = variant.backbone or study.backbone
    backbone = BACKBONES[backbone]() if isinstance(backbone, str) else backbone
    return StudiedFCN(num_classes, backbone, variant.stride, way=variant.way)


def train(study: Study, name: str, seed: int, dataset: Dataset) -> Iterator[Row]:
    """Train a variant, and yield a row after every evaluation."""
    variant = VARIANTS[name]
    config = make_config(study, variant, seed)
    options = fill_options(RunOptions(eval_every=study.eval_every), config)
    num_classes = len(dataset.class_names)
    model = build_network(study, variant, num_classes)
    train_step = make_step(model, config)
    forward = make_forward(model, config.model.input_or_default)
    state = init_state(model, config)
    one_device = NamedSharding(Mesh(np.array(jax.local_devices()[:1]), ("data",)), PartitionSpec("data"))
    batches = train_batches(dataset.source("train"), dataset.max_size, config, options, 0, one_device)
    val = dataset.source("val")
    began, losses = time.perf_counter(), []
    progress = tqdm(range(1, study.steps + 1), f"{study.data} {name} seed {seed}", disable=None)
    with contextlib.closing(progress):
        for step in progress:
            state, metrics = train_step(state, next(batches))
            losses.append(metrics["loss"])
            if step % study.eval_every == 0 or step == study.steps:
                devices = jax.local_device_count()
                result = evaluate(forward, state.variables, val, dataset.tasks, devices, options.workers)
                logits = compute_logits(model, config, state.variables, val)
                yield {
                    "seed": f"{seed}",
                    "step": f"{step}",
                    "train_loss": f"{np.mean(jax.device_get(losses)):.4f}",
                    "val_loss": f"{result.loss:.4f}",
                    "mean_iu": f"{result.metrics.mean_iu:.4f}",
                    "pixel_accuracy": f"{result.metrics.pixel_accuracy:.4f}",
                    "checkerboard": f"{measure_checkerboard(logits, model.stride):.4f}",
                    "seconds": f"{time.perf_counter() - began:.0f}",
                }
                losses.clear()


def compute_logits(model: FCN, config: Config, variables: Any, val: Sequence[Example], count: int = 16) -> np.ndarray:
    """Compute the logits of the first images: float64[count, height, width, classes].

    They are cropped to the largest size that all of them have and that is a whole number of cells.
    """
    examples = [val[index] for index in range(min(count, len(val)))]
    sides = zip(*(example.label.shape for example in examples), strict=True)
    height, width = (min(side) // model.stride * model.stride for side in sides)
    crops = [e._replace(image=e.image[:height, :width], label=e.label[:height, :width]) for e in examples]
    batch = place_on_canvas(crops, len(crops), (height, width))
    return np.asarray(_apply(model, config.model.input_or_default, variables, batch.image), np.float64)


@partial(jax.jit, static_argnums=(0, 1))
def _apply(model: FCN, input_config: InputConfig, variables: Any, images: Any) -> jax.Array:
    return model.apply(variables, normalise(images, input_config))


def measure_checkerboard(logits: np.ndarray, stride: int) -> float:
    """Measure the checkerboard energy of logits: how unevenly they change over the places of a cell.

    For each place r = 0 .. s-1 in the cells of stride s, take the mean square of the difference between a pixel at
    place r and the next one. The energy is the standard deviation of these s values divided by their mean, averaged
    over rows and columns. It is 0 if they are equal, and sqrt(s - 1) if all changes are at one place, as between tiles.

    Args:
        logits: float64[batch, height, width, classes], of whole cells.
        stride: pixels per cell.
    """
    energies = []
    for axis in (1, 2):
        lines = np.moveaxis(logits, axis, 0)
        change = np.square(np.roll(lines, -1, axis=0) - lines).mean(axis=(1, 2, 3))
        change[-1] = np.nan  # the last pixel has no next one
        places = np.nanmean(change.reshape(-1, stride), axis=0)
        energies.append(places.std() / max(places.mean(), 1e-30))
    return float(np.mean(energies))


def read_rows(file: Path) -> list[Row]:
    """Read the rows of results.csv; there are none if there is no such file."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(file: Path, rows: list[Row]) -> None:
    """Write all rows. If the process is killed, the file is the old one or the new one."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(file, text.getvalue())
