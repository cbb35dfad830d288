"""Read the inputs of an image to segment from their files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcn_jax.config import InputConfig
from fcn_jax.data.bands import read_bands
from fcn_jax.data.inputs import Input, Pixels
from fcn_jax.data.large_images import make_room
from fcn_jax.errors import InputError
from fcn_jax.inference.read_image import read_image


class Reader(NamedTuple):
    """Functions of the file of an image.

    Attributes:
        list_files: returns all files that belong to it, itself first.
        read: reads the image as the network takes it, from all these files.
    """

    list_files: Callable[[Path], list[Path]]
    read: Callable[[Path], Pixels]


def make_reader(inputs: Sequence[Input], given: InputConfig, folders: Mapping[str, Path]) -> Reader:
    """Make the functions that read the image of a network: a file, and for each further input the one of its name.

    Args:
        inputs: the inputs of the data set that the network takes.
        given: the input of the network.
        folders: for each input but the first the folder of its files. Their stems are those of the image files.

    Raises:
        InputError: an input has no folder, or a folder is given for something else. `read` raises it if a file is
            missing, cannot be read, or has another size or other channels than the network takes.
    """
    first, *others = inputs
    wanted = " ".join(f"{other.name}=FOLDER" for other in others)
    for name in {other.name for other in others} ^ set(folders):
        what = f"needs {name}, too" if name not in folders else f"has no further input {name}"
        remedy = f"give --inputs {wanted}" if others else "leave --inputs out"
        raise InputError(f"the network takes {' and '.join(each.name for each in inputs)}, and it {what}: {remedy}")
    channels = dict(given.channels)
    files = {name: _list_by_stem(folder) for name, folder in folders.items()}

    def list_files(file: Path) -> list[Path]:
        return [file, *(found for other in others for found in files[other.name].get(file.stem, []))]

    def read(file: Path) -> Pixels:
        parts = [_read_input(file, first, given, channels[first.name])]
        for other in others:
            found = files[other.name].get(file.stem, [])
            if len(found) != 1:
                raise InputError(
                    f"{folders[other.name]} has {len(found)} files {file.stem}.* for {file}; it must have one, with "
                    f"the {other.name} of this image"
                )
            parts.append(_read_input(found[0], other, given, channels[other.name]))
            if parts[-1].shape[:2] != parts[0].shape[:2]:
                sizes = [f"{part.shape[1]}x{part.shape[0]}" for part in (parts[-1], parts[0])]
                raise InputError(
                    f"{found[0]} has {sizes[0]} pixels and {file} {sizes[1]}; they must have the same size"
                )
        return parts[0] if not others else np.concatenate(parts, axis=-1, dtype=given.dtype)

    return Reader(list_files, read)


def parse_folders(words: Sequence[str]) -> dict[str, Path]:
    """Parse the folders of further inputs, such as depth=FOLDER.

    Raises:
        InputError: a word has another form, or an input has two folders.
    """
    folders = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder) or name in folders:
            raise InputError(f"inputs has {word!r}; give each further input once, as NAME=FOLDER")
        folders[name] = Path(folder)
    return folders


def _list_by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give --inputs NAME=FOLDER with the folder of the files of an input")
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        files.setdefault(file.stem, []).append(file)
    return files


def _read_input(file: Path, wanted: Input, given: InputConfig, channels: int) -> Pixels:
    if wanted.is_picture:
        return read_image(file)
    with make_room(file):
        return read_bands(file, wanted._replace(channels=channels, dtype=wanted.dtype or given.dtype))
