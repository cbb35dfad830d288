"""Weights from where people have them: each reader turns a file of another framework into our names and layouts."""

from typing import NamedTuple

import numpy as np

from fcn_jax.config import InputConfig


class Weights(NamedTuple):
    """What a file of weights holds, in the names and layouts of our networks.

    Attributes:
        arrays: by path in the variables, "params/backbone/conv1_1/kernel": float32, convolutions as [h, w, in, out].
        unknown: names of the file's tensors that stand for nothing in our networks, as the file has them.
        input: what the network takes pixels to be; None where the file does not tell.
        origin: the file and its format, for messages: "vgg16.pth (PyTorch, torchvision's VGG16)".
    """

    arrays: dict[str, np.ndarray]
    unknown: tuple[str, ...]
    input: InputConfig | None
    origin: str
