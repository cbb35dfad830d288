"""Small files that would fill the memory."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from faults.harness import limit_time
from faults.weight_surfaces import VGG, pickle_state, torch_legacy, torch_zip

from fcn_jax.errors import InputError
from fcn_jax.weights.bounds import require_bounded
from fcn_jax.weights.read import read_weights


def refuse(folder: Path, content: bytes, message: str) -> None:
    (folder / "x").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(folder / "x")


def test_the_bound_is_the_size_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    require_bounded(5, "numbers", tmp_path / "x")
    with pytest.raises(InputError, match="x has 5 bytes and claims to hold 6 numbers"):
        require_bounded(6, "numbers", tmp_path / "x")


@pytest.mark.parametrize("save", [torch_zip, torch_legacy])
def test_views_that_repeat_a_number(tmp_path, save):
    one = {"features.0.weight": np.zeros((1, 1, 1, 1), np.float32)}
    shape, strides = (b"".join(b"J" + struct.pack("<i", n) for n in numbers) for numbers in ((1,) * 4, (1,) * 4))
    large = b"".join(b"J" + struct.pack("<i", n) for n in (10**5, 10**5, 3, 3)), b"J\0\0\0\0" * 4
    content = pickle_state(one).replace(shape + b"t(" + strides, large[0] + b"t(" + large[1])
    refuse(tmp_path, save(one, content), "claims to hold 90000000000 numbers")


@pytest.mark.parametrize("save", [torch_zip, torch_legacy])
def test_a_pickle_that_makes_room_for_two_billion_values(tmp_path, save):
    content = b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"."
    refuse(tmp_path, save({}, content), "a value is kept at the place 2147483647, which is out of order")


def test_a_storage_of_the_former_format_beyond_the_file(tmp_path):
    content = torch_legacy(VGG).replace(struct.pack("<q", 2 * 3 * 9), struct.pack("<q", 2**40))
    refuse(tmp_path, content, r"claims to hold 4398046511104 bytes in the storage '0'")


def test_a_zip_file_that_is_compressed(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle_state(VGG))
        archive.writestr("x/data/0", bytes(10**6))
    refuse(tmp_path, file.getvalue(), "bytes in its entries")


def test_a_dictionary_that_is_in_many_places(tmp_path):
    """Each of its numbers was counted once for each place."""
    many = {f"k{number}": 1 for number in range(3000)}
    (tmp_path / "x").write_bytes(torch_zip({}, pickle.dumps({f"e{number}": many for number in range(30_000)}, 2)))
    with pytest.raises(InputError, match="holds no tensors by name"), limit_time(10):
        read_weights(tmp_path / "x")


@pytest.mark.parametrize("options", [{"shape": (3, 3, 10**5, 10**5)}, {"shape": (3, 3, 3, 2), "maxshape": (None,) * 4}])
def test_arrays_of_hdf5_that_are_stored_by_their_shape(tmp_path, options):
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        group = opened.create_group("layers/a/vars")
        group.attrs["name"] = "block1_conv1"
        group.create_dataset("0", dtype="f4", chunks=(3, 3, 3 if options["shape"][2] > 3 else 10**6, 2), **options)
        group["1"] = np.zeros(2, np.float32)
    refuse(tmp_path, file.getvalue(), r"bytes and claims to hold \d+ numbers")


def test_arrays_of_hdf5_in_other_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3 * 3 * 3 * 2 * 4))
    with h5py.File(tmp_path / "secret.h5", "w") as opened:
        opened["kernel"] = np.zeros((3, 3, 3, 2), np.float32)
    for name in ("external", "link"):
        with h5py.File(tmp_path / name, "w") as opened:
            group = opened.create_group("layers/a/vars")
            group.attrs["name"] = "block1_conv1"
            group["1"] = np.zeros(2, np.float32)
            if name == "link":
                group["0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")
            else:
                group.create_dataset("0", (3, 3, 3, 2), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        with pytest.raises(InputError, match="has its numbers in another file, which is not opened"):
            read_weights(tmp_path / name)
