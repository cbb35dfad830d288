"""Masks and images in MATLAB's `.mat` files: of version 5, and of version 7.3, which is HDF5."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Shaped, UInt16

from fcn_jax.data.mat5 import MOST, describe_damage, read_array, read_file
from fcn_jax.errors import InputError

UNLABELLED = 65535  # what -1 becomes, with which some data sets mark pixels without a label
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # bytes before the HDF5 part, where MATLAB puts its header


def read_mask_array(file: Path, variable: str) -> UInt16[np.ndarray, "height width"]:
    """Read the numbers of a mask.

    Args:
        file: a `.mat` file.
        variable: name of the variable that is the mask, or of a field in it, such as `GTcls.Segmentation`.

    Returns:
        The number of each pixel; -1 has become `UNLABELLED`.

    Raises:
        InputError: the file cannot be read, is damaged, or has no matrix of whole numbers from -1 to 65534 there.
    """
    name = f"mask {file.name}"
    data = read_file(file, name)
    if _SIGNATURE not in (data[:8], data[_USER_BLOCK : _USER_BLOCK + 8]):
        return _narrow(read_array(file, variable, name), f"variable {variable} of {name}")
    try:
        with h5py.File(file) as opened:
            array = _find(opened, variable.replace(".", "/"))
            values = _read_part(array, ())
    except Exception as error:  # a damaged file can raise anything
        raise describe_damage(name, variable, error) from error
    return _narrow(values.T, f"variable {variable} of {name}")


def read_slice(
    file: Path, index: int, mask: str, arrays: Sequence[tuple[tuple[str, ...], Callable[..., np.ndarray]]]
) -> tuple[list[Shaped[np.ndarray, "height width channels"]], UInt16[np.ndarray, "height width"]]:
    """Read the inputs and the mask of one example of a file that has all of them. Other examples are not read.

    Args:
        file: a `.mat` file of version 7.3.
        index: number of the example, from 0.
        mask: name of the variable of the masks, in MATLAB of the shape [height, width, examples].
        arrays: for each input the variables that it is made of, in MATLAB of the shape [height, width, examples] or
            [height, width, channels, examples], and the function that makes it of the arrays of an example, [height,
            width] or [height, width, channels]. It raises ValueError if they are of another type or shape.

    Raises:
        InputError: the file is damaged, has no such variables, or has fewer examples.
    """
    names = " and ".join([*dict.fromkeys(name for variables, _ in arrays for name in variables), mask])
    try:
        with h5py.File(file) as opened:
            inputs = [
                make(*(_read_part(_find(opened, name), (index,)).T for name in variables)) for variables, make in arrays
            ]
            numbers = _read_part(_find(opened, mask), (index,)).T
    except Exception as error:  # a damaged file can raise anything
        raise describe_damage(f"example {index + 1} of {file.name}", names, error) from error
    label = _narrow(numbers, f"{mask} of example {index + 1} of {file.name}")
    if any(array.shape[:2] != label.shape for array in inputs):
        error = ValueError(f"they have the sizes {', '.join(str(x.shape[:2]) for x in (*inputs, label))}")
        raise describe_damage(f"example {index + 1} of {file.name}", names, error)
    return inputs, label


def _find(opened: h5py.File, path: str) -> h5py.Dataset:
    """Find an array of numbers. HDF5 has MATLAB's axes in the opposite order."""
    found = opened.get(path)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf":
        raise ValueError(f"it has no array of numbers {path!r}, but {', '.join(map(repr, list(opened)[:5]))}")
    if found.file.filename != opened.filename or found.external or found.is_virtual:
        raise ValueError(f"the numbers of {path!r} are in another file")
    return found


def _read_part(array: h5py.Dataset, index: tuple[int, ...]) -> np.ndarray:
    """Read an array, or what it has at an index of its first axis, if that and its chunks are not too large."""
    # A chunk is decompressed as a whole, and may be larger than its array.
    count = max(math.prod(array.shape[len(index) :]), math.prod(array.chunks or ()))
    if count * array.dtype.itemsize > MOST:
        raise ValueError(f"{array.name} has {count} numbers, which are more than {MOST} bytes")
    return array[index]


def _narrow(array: np.ndarray, name: str) -> UInt16[np.ndarray, "height width"]:
    """Return whole numbers from -1 to 65534 as uint16."""
    if array.ndim != 2 or not array.size:
        raise InputError(
            f"{name} has the shape {list(array.shape)}; a mask is a matrix with the number of each pixel: get the file "
            "anew"
        )
    low, high = array.min(), array.max()
    if not (low >= -1 and high < UNLABELLED) or (array != array.astype(np.int32)).any():
        raise InputError(
            f"{name} has values from {low} to {high} that are not all whole numbers from 0 to {UNLABELLED - 1}, or -1 "
            "for pixels without a label; get the file anew"
        )
    return array.astype(np.int32).astype(np.uint16)
