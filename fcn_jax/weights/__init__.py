"""Weights from where people have them: each reader turns a file of another framework into our names and layouts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.errors import InputError

HDF5 = b"\x89HDF\r\n\x1a\n"
# Keys of the fields that a .caffemodel may begin with (caffe.proto, NetParameter): name, layers of 2014, input, layer.
CAFFE_FIELDS = (b"\x0a", b"\x12", b"\x1a", b"\xa2\x06")


class Weights(NamedTuple):
    """What a file of weights holds, in the names and layouts of our networks.

    Attributes:
        arrays: by path in the variables, "params/backbone/conv1_1/kernel": float32, convolutions as [h, w, in, out].
        unknown: names of the file's tensors that stand for nothing in our networks, as the file has them.
        input: what the network takes pixels to be; None where the file does not tell.
        origin: the file and its format, for messages: "vgg16.pth (PyTorch, torchvision's VGG16)".
        class_names: of the scores; None where the file does not tell.
    """

    arrays: dict[str, np.ndarray]
    unknown: tuple[str, ...]
    input: InputConfig | None
    origin: str
    class_names: tuple[str, ...] | None = None


def read(file: Path) -> Weights:
    """Reads a file of weights; what it begins with tells its format, whatever its name.

    Raises:
        InputError: there is no such file, or it is in no format that is read here, or it is damaged.
    """
    try:
        with file.open("rb") as stream:
            beginning = stream.read(256)
    except OSError as error:
        raise InputError(f"weights {file} cannot be read ({error.strerror}); give a file of weights") from error
    # Imported here, as each reader imports this module.
    from fcn_jax.weights import caffe, keras, ours, torchvision

    if ours.is_ours(beginning):
        return ours.read(file)
    if beginning.startswith(HDF5):
        return keras.read(file)
    if beginning.startswith(CAFFE_FIELDS) and beginning[8:9] != b"{":
        return caffe.read(file)
    return torchvision.read(file)  # which tells, of what is none of all these, what it is
