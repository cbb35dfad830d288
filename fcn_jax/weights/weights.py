"""Weights with what belongs to them: the input that they were trained with, and the names of their classes."""

from typing import NamedTuple

import numpy as np

from fcn_jax.config import InputConfig


class Weights(NamedTuple):
    """The content of a file of weights, in the names and layouts of our networks.

    Attributes:
        arrays: arrays by path in the variables, such as "params/backbone/conv1_1/kernel". They are float32, and kernels
            of convolutions are [h, w, in, out].
        unknown: names of the file's tensors that have no place in our networks, as the file spells them.
        input: what the network takes as pixels; None if the file does not say.
        origin: the file and its format, for messages: "vgg16.pth (PyTorch, torchvision's VGG16)".
        class_names: names of the classes of the scores; None if the file does not say.
    """

    arrays: dict[str, np.ndarray]
    unknown: tuple[str, ...]
    input: InputConfig | None
    origin: str
    class_names: tuple[str, ...] | None = None
