"""A small network with random variables, whose class maps hold several classes, and images of many sizes for it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from random_variables import draw_variables
from small_runs import NORMED

from fcn_jax.config import InputConfig
from fcn_jax.data.augment import normalise
from fcn_jax.data.dataset import Example
from fcn_jax.models.fcn import FCN8s

CLASSES = 4


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
