"""Networks, configurations and data small enough to train in a test."""

from pathlib import Path

import numpy as np
from PIL import Image

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, OptimConfig, RunOptions
from fcn_jax.data.augment import draw_changes
from fcn_jax.data.batches import Batch, place_on_canvas
from fcn_jax.data.dataset import Example
from fcn_jax.data.defaults import fill_config
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG

CLASSES = 3
RESNET = ResNet(depths=(1, 1, 1, 1), width=8)
VGG_WITHOUT_DROPOUT = VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=1, dropout=0.0)


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
