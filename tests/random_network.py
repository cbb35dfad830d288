"""A small network with random variables, whose class maps hold several classes, and images and runs for it."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from random_variables import draw_variables
from small_runs import NORMED

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, InputConfig, ModelConfig, RunOptions
from fcn_jax.data.augment import normalise
from fcn_jax.data.dataset import Example, prepare_configured
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.build import build
from fcn_jax.models.fcn import FCN8s
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.run_dir import open_for_training

CLASSES = 4
# To be put in the place of `fcn_jax.models.build.BACKBONES` while runs of `write_run` are used.
SMALL = {**BACKBONES, "resnet18": functools.partial(ResNet, depths=(1, 1, 1, 1), width=8)}


def write_run(folder: Path, data: DataConfig, where: DataOptions) -> None:
    """Write a run: random variables after step 1, twice as large ones after step 2, the better score at step 1."""
    dataset = prepare_configured(data, where)
    model = ModelConfig(backbone="resnet18")
    config = fill_config(Config(model=model, data=data, augment=AugmentConfig(crop=32)))
    options = fill_options(RunOptions(data=where), config)
    variables = draw_network_variables(build(model, len(dataset.class_names)))
    with (
        open_for_training(folder, config, options, dataset) as run,
        Checkpoints(run.checkpoints) as checkpoints,
    ):
        checkpoints.save(1, {"variables": variables})
        checkpoints.note_score(1, 0.5)
        checkpoints.save(2, {"variables": jax.tree.map(lambda x: 2 * x, variables)})
        checkpoints.note_score(2, 0.25)


def draw_network_variables(model) -> Any:
    """Draw variables at random, as JAX arrays; initial scores would be zero."""
    return jax.tree.map(jnp.asarray, draw_variables(model, jnp.zeros((1, 8, 8, 3))))


@functools.cache
def network():
    model = FCN8s(num_classes=CLASSES, backbone=NORMED)
    return model, draw_network_variables(model)


@functools.cache
def examples() -> list[Example]:
    """Sizes on five canvases, one of a single pixel, one all void."""
    generator = np.random.default_rng(1)
    sizes = [(40, 50), (33, 64), (1, 1), (64, 33), (40, 60), (50, 40), (31, 20), (64, 64), (60, 60), (7, 64), (5, 5)]

    def example(index: int, height: int, width: int) -> Example:
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        label = generator.integers(0, CLASSES - 1, (height, width)).astype(np.uint8)
        label[generator.random(label.shape) < 0.1] = 255
        if index == 4:
            label[:] = 255
        return Example(f"image{index}", image, label)

    return [example(index, *size) for index, size in enumerate(sizes)]


@functools.cache
def logits_alone() -> dict[str, np.ndarray]:
    """The logits of every example by itself, without padding."""
    model, variables = network()
    apply = jax.jit(model.apply)
    return {
        e.name: np.asarray(apply(variables, normalise(jnp.asarray(e.image)[None], InputConfig()))[0])
        for e in examples()
    }


def assert_class_map(class_map: np.ndarray, logits: np.ndarray) -> None:
    """Equal except where two classes have the same logits to the last bits."""
    assert class_map.dtype == np.uint8
    assert class_map.shape == logits.shape[:2]
    ranked = np.sort(logits, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > 1e-4
    np.testing.assert_array_equal(class_map[clear], logits.argmax(-1)[clear])
    assert clear.mean() > 0.99


def blank(name: str, height: int, width: int) -> Example:
    return Example(name, np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))
