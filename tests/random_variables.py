"""Random variables for the modules of a test."""

from typing import Any

import jax
import numpy as np


def draw_variables(module, *arguments, fan_in_of_vectors: int = 1) -> Any:
    """Draw all parameters and statistics so that activations keep their size; fresh scores would be zero."""
    generator = np.random.default_rng(0)

    def draw(path, shape):
        if path[-1].key in ("var", "scale"):
            return generator.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else fan_in_of_vectors
        return (generator.normal(size=shape.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    shapes = jax.eval_shape(module.init, jax.random.key(0), *arguments)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)
