"""Networks, configurations and data small enough to train in a test."""

from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from PIL import Image

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.augment import draw_changes
from fcn_jax.data.canvas import Batch, place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.data.defaults import fill_config
from fcn_jax.layers import BatchNorm, Conv
from fcn_jax.models.feature_map import FeatureMap, convolve

CLASSES = 3


class Tiny(nn.Module):
    """A backbone of three convolutions, which is compiled in a tenth of the time of a small ResNet.

    Attributes:
        with_bn: whether to use BatchNorm after each convolution.
        dropout: share of the activations at stride 32 that is dropped in training.
    """

    with_bn: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: FeatureMap, train: bool = False) -> tuple[FeatureMap, FeatureMap, FeatureMap]:
        maps = []
        for name, side in (("conv1", 8), ("conv2", 2), ("conv3", 2)):
            x = convolve(Conv(8, (side, side), side, padding=side // 2, name=name), x)
            if self.with_bn:
                x = x.map(BatchNorm(use_running_average=not train))
            x = x.map(jax.nn.relu)
            maps.append(x)
        return maps[0], maps[1], x.map(nn.Dropout(self.dropout, deterministic=not train))


NORMED = Tiny(with_bn=True)
PLAIN = Tiny()


def config(**changes) -> Config:
    settings = {
        "model": ModelConfig(backbone="resnet18"),
        "augment": AugmentConfig(crop=32, scale=(0.7, 1.4)),
        "optim": OptimConfig(learning_rate=0.02, weight_decay=1e-3),
        "steps": 40,
        "batch_size": 8,
    }
    return fill_config(Config(**(settings | changes)))


def folder_run(folder: Path, **changes) -> tuple[Config, RunOptions]:
    """A run on `folder_data`, which is written into the folder."""
    where = DataOptions(dir=folder_data(folder), cache=folder / "cache")
    options = {name: changes.pop(name) for name in set(changes) & set(vars(RunOptions()))}
    return config(data=DataConfig("folder"), **changes), RunOptions(**({"data": where, "log_every": 1} | options))


def examples(count: int, seed: int = 0) -> list[Example]:
    generator = np.random.default_rng(seed)

    def example(index: int) -> Example:
        height, width = generator.integers(20, 41, 2)
        label = np.zeros((height, width), np.uint8)
        label[:, width // 3 :] = 1
        label[height // 2 :, width // 2 :] = 2
        label[0] = 255
        image = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)[np.where(label == 255, 0, label)]
        return Example(str(index), image + generator.integers(0, 50, image.shape, np.uint8), label)

    return [example(index) for index in range(count)]


def draw_batch(settings: Config, images: list[Example], canvas: tuple[int, int], step: int = 0) -> Batch:
    """A batch of a whole host, with the changes of a step."""
    batch = place_on_canvas(images, len(images), canvas)
    return batch._replace(changes=draw_changes(settings.seed, step, batch.size, 0, len(images), settings.augment))


def folder_data(folder: Path) -> Path:
    """A folder data set of one image a split, of three classes."""
    for example, split in zip(examples(2), ("train", "val"), strict=True):
        for kind, array in (("images", example.image), ("labels", example.label)):
            (folder / kind / split).mkdir(parents=True)
            Image.fromarray(array).save(folder / kind / split / "one.png")
    (folder / "classes.txt").write_text("sky\nsea\nsand\n")
    return folder
