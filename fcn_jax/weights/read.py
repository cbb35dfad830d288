"""Read a file of weights of any supported format."""

from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.weights import caffe, keras, ours, torchvision
from fcn_jax.weights.safetensors_file import is_safetensors
from fcn_jax.weights.weights import Weights

HDF5 = b"\x89HDF\r\n\x1a\n"
# Keys of the fields that a .caffemodel may begin with (caffe.proto, NetParameter): name, layers of 2014, input, layer.
CAFFE_FIELDS = (b"\x0a", b"\x12", b"\x1a", b"\xa2\x06")


def read_weights(file: Path) -> Weights:
    """Read a file of weights. Its first bytes decide its format, not its name.

    Raises:
        InputError: the file is missing, damaged, or of a format that is not supported.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(256)
    except OSError as error:
        raise InputError(f"weights {file} cannot be read ({error.strerror}); give a file of weights") from error
    if is_safetensors(start):
        return ours.read(file) if ours.is_ours(file) else torchvision.read(file)
    if start.startswith(HDF5):
        return keras.read(file)
    if start.startswith(CAFFE_FIELDS):
        return caffe.read(file)
    return torchvision.read(file)  # which raises an error that names the format if it is not supported
