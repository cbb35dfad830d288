"""Checks of what a network is given: images, their sizes, and attributes."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fcn_jax.layers.sizes import is_int, read_array
from fcn_jax.models.feature_map import FeatureMap

IMAGES = "normalized images, floating point, [batch, height, width, channels]"


def read_images(images: Any, size: Any, origin: Any = None) -> FeatureMap:
    """Read a batch of images as the feature map that a network begins with.

    Args:
        images: normalized images, floating point, ``[batch, height, width, channels]``. The batch may be empty.
        size: integers ``[batch, 2]``, rows and columns that belong to each image; None: all of them.
        origin: integers ``[batch, 2]``, row and column of each image at which its canvas begins; None: 0. It needs
            `size`, which is then that of the whole image.

    Raises:
        ValueError: an argument is no array, or has another type or shape.
    """
    values = read_array(images, "images", IMAGES)
    if values.ndim != 4 or 0 in values.shape[1:]:
        hint = "; for one image give images[None]" if values.ndim == 3 else ""
        raise ValueError(
            f"images have the shape {values.shape}; they must be {IMAGES}; height, width and channels must be at least "
            f"1{hint}"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"images are {values.dtype}; they must be {IMAGES}: subtract the mean of each channel and divide by its "
            "standard deviation"
        )
    if size is None and origin is not None:
        raise ValueError("origin is given without size; give the rows and columns of each whole image as size")
    return FeatureMap(values, _read_pairs(size, "size", values), origin=_read_pairs(origin, "origin", values))


def _read_pairs(pairs: Any, name: str, images: jax.Array) -> jax.Array | None:
    """Read integers that are rows and columns for each image; None stays None."""
    if pairs is None:
        return None
    pairs = read_array(pairs, name, "integers [batch, 2]")
    if not jnp.issubdtype(pairs.dtype, jnp.integer) or pairs.shape != (images.shape[0], 2):
        raise ValueError(
            f"{name} is {pairs.dtype}{list(pairs.shape)}; it must be integers [batch, 2], rows and columns of each of "
            f"the {images.shape[0]} images"
        )
    return pairs.astype(jnp.int32)  # the network negates them, which unsigned numbers do not survive


def check_num_classes(num_classes: Any, tasks: Any = ()) -> None:
    """Raise ValueError unless a number of classes is an integer of at least 1, to which those of the tasks add up."""
    if not is_int(num_classes) or num_classes < 1:
        raise ValueError(
            f"num_classes is {num_classes!r}; it must be an integer of at least 1, the background included"
        )
    if not isinstance(tasks, tuple) or not all(map(is_int, tasks)):
        raise ValueError(f"tasks are {tasks!r}; they must be a tuple of integers, the number of classes of each task")
    if tasks and (sum(tasks) != num_classes or min(tasks) < 1):
        raise ValueError(f"tasks are {tasks}; they must be at least 1 and add up to num_classes, {num_classes}")


def check_dtype(dtype: Any) -> None:
    """Raise ValueError unless the dtype of a computation is a floating-point one."""
    try:
        fits = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"dtype is {dtype!r}; it must be a floating-point type, such as jnp.float32 or jnp.bfloat16")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless an attribute has one of the values allowed."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_skip_scales(skip_scales: Any) -> None:
    """Raise ValueError unless there are two finite factors."""
    if np.shape(skip_scales) != (2,) or not all(isinstance(x, Real) and math.isfinite(x) for x in skip_scales):
        raise ValueError(f"skip_scales are {skip_scales!r}; they must be two finite factors, on pool4 and on pool3")


def check_depths(depths: Any, stages: int) -> None:
    """Raise ValueError unless a backbone has at least one layer or block in each of its stages."""
    if len(depths) != stages or not all(is_int(depth) and depth >= 1 for depth in depths):
        raise ValueError(f"depths are {depths!r}; they must be {stages} integers of at least 1, one for each stage")
