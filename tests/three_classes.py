"""Weights of a network of three classes, as a file gives them."""

import numpy as np
from flax import traverse_util

from fcn_jax.config import InputConfig
from fcn_jax.weights.weights import Weights

NAMES = ("sky", "sea", "sand")


def weights_of(variables: dict, **changes) -> Weights:
    arrays = {path: np.asarray(array) for path, array in traverse_util.flatten_dict(variables, sep="/").items()}
    return Weights(arrays, (), InputConfig(), "w", NAMES)._replace(**changes)
