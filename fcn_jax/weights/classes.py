"""Class axes of arrays, and arrays for a network with other classes than the file has."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.weights.weights import Weights


def count_class_axes(path: str) -> int:
    """Count the last axes of an array that run over classes: one in score layers, two in their upsampling, else 0."""
    module = path.split("/")[-2]
    return 2 if module.startswith("upscore") else 1 if module.startswith("score") else 0


def take_classes(start: Any, array: np.ndarray, class_axes: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Copy the values of known classes into the array of a network with other classes.

    Args:
        start: what the network starts with; classes that are not known keep it.
        array: from the file.
        class_axes: number of last axes that run over classes, 1 or 2.
        pairs: for each known class its index in the network and in the file.
    """
    new, old = np.array(pairs, int).reshape(-1, 2).T
    result = np.array(start.addressable_data(0) if isinstance(start, jax.Array) else start)
    if class_axes == 1:
        result[..., new] = array[..., old]
    else:
        result[..., new[:, None], new[None, :]] = array[..., old[:, None], old[None, :]]
    return result


def name_classes(weights: Weights, class_names: Sequence[str]) -> Weights:
    """Return the same weights with the names of the classes of their scores.

    Raises:
        InputError: the scores have another number of classes.
    """
    for path, array in weights.arrays.items():
        if count_class_axes(path) and array.shape[-1] != len(class_names):
            raise InputError(
                f"{path} of {weights.origin} has {array.shape[-1]} classes, and {len(class_names)} names are given; "
                "give one name for each class, in order"
            )
    return weights._replace(class_names=tuple(class_names))
