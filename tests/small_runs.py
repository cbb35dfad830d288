"""Networks, configurations and data small enough to train in a test."""

from pathlib import Path

import numpy as np
from PIL import Image

from fcn_jax.config import AugmentConfig, Config, OptimConfig
from fcn_jax.data.dataset import Example
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.backbones.vgg import VGG

CLASSES = 3
RESNET = ResNet(depths=(1, 1, 1, 1), width=8)
VGG_WITHOUT_DROPOUT = VGG(depths=(1, 1, 1, 1, 1), fc_features=8, fc_kernel=1, dropout=0.0)


def config(**changes) -> Config:
    settings = {
        "augment": AugmentConfig(crop=32, scale=(0.7, 1.4)),
        "optim": OptimConfig(learning_rate=0.02, weight_decay=1e-3),
        "steps": 40,
        "batch_size": 8,
        "eval_every": 20,
    }
    return Config(**(settings | changes)).resolved()


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


def folder_data(folder: Path) -> Path:
    """A folder data set of one image a split, of three classes."""
    for example, split in zip(examples(2), ("train", "val"), strict=True):
        for kind, array in (("images", example.image), ("labels", example.label)):
            (folder / kind / split).mkdir(parents=True)
            Image.fromarray(array).save(folder / kind / split / "one.png")
    (folder / "classes.txt").write_text("sky\nsea\nsand\n")
    return folder
