"""Tensors of .pth files in both formats, compared with PyTorch's own; and files that are damaged."""

from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from torch_files import OldTensor, save_legacy, save_zip, tensors_of_all_types

from fcn_jax.errors import InputError
from fcn_jax.weights.torch_file import LEGACY_START, is_torch, read_torch

pytestmark = pytest.mark.peers
both_saved = pytest.mark.parametrize("save", torch_files.SAVE.values(), ids=torch_files.SAVE)
both_written = pytest.mark.parametrize("write", torch_files.WRITE.values(), ids=torch_files.WRITE)


@both_saved
def test_every_type_and_shape_is_read(torch, tmp_path, save):
    tensors = tensors_of_all_types() | {"scalar": torch.tensor(7), "none": torch.zeros((0, 4))}
    save(tensors, tmp_path / "x")
    got, _ = read_torch(tmp_path / "x")
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        assert got[name].shape == tuple(tensor.shape)
        assert got[name].dtype == jnp.dtype(str(tensor.dtype).removeprefix("torch."))
        np.testing.assert_array_equal(got[name].astype(np.float64), tensor.double().numpy())


@both_saved
def test_views_are_read_with_their_strides(torch, tmp_path, save):
    """Transposed, cut out, sharing a storage, and as parameters."""
    base = torch.arange(24.0).reshape(4, 6)
    tensors = OrderedDict(
        a=base.T, b=base[1:3, 2:5], c=base, d=torch.nn.Parameter(base[::2]), e=base[:1].expand(3, 6), f=base.T[2]
    )
    save(tensors, tmp_path / "x")
    got, _ = read_torch(tmp_path / "x")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(got[name], tensor.detach().numpy())


@both_written
def test_parameters_of_the_first_versions_are_read(torch, tmp_path, write):
    write(tmp_path / "x", {"weight": OldTensor(1, (3,), (1,))})
    np.testing.assert_array_equal(read_torch(tmp_path / "x")[0]["weight"], [1, 2, 3])


def test_files_are_told_by_their_start(torch, tmp_path):
    for save in (save_zip, save_legacy):
        save({}, tmp_path / "x")
        assert is_torch((tmp_path / "x").read_bytes())
    assert (tmp_path / "x").read_bytes().startswith(LEGACY_START)
    assert not any(map(is_torch, (b"", b"PK", b"<html>", b"\x80\x02}q\x00.", b"\x89HDF\r\n\x1a\n")))


def test_the_other_byte_order_is_refused(torch, tmp_path):
    content = {"weight": OldTensor(0, (4,), (1,))}
    torch_files.write_zip(tmp_path / "zip", content, byteorder=b"big")
    torch_files.write_legacy(tmp_path / "legacy", content, little_endian=False)
    for name in ("zip", "legacy"):
        with pytest.raises(InputError, match="must both be little-endian"):
            read_torch(tmp_path / name)
    torch_files.write_zip(tmp_path / "zip", content, byteorder=b"little")
    assert read_torch(tmp_path / "zip")[0]["weight"].tolist() == [0, 1, 2, 3]


@both_saved
def test_files_that_are_cut_off_are_refused(torch, tmp_path, save):
    file = tmp_path / "x.pth"
    save(tensors_of_all_types(), file)
    whole = file.read_bytes()
    for length in {*range(1, len(whole), 97), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"x\.pth is damaged or cut short"):
            read_torch(file)


def flip_bits(whole: bytes, times: int):
    """Yields copies of a file in which one bit has changed."""
    generator = np.random.default_rng(0)
    for place in generator.integers(len(whole), size=times):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        yield damaged


def test_changed_bits_in_a_zip_file_are_noticed_or_change_nothing(torch, tmp_path):
    """Every number and name is under a checksum; only times and padding are not."""
    file = tmp_path / "x.pth"
    tensors = tensors_of_all_types()
    torch.save(tensors, file)
    noticed = 0
    for damaged in flip_bits(file.read_bytes(), 400):
        file.write_bytes(damaged)
        try:
            got, _ = read_torch(file)
        except InputError:
            noticed += 1
            continue
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(got[name].astype(np.float64), tensor.double().numpy())
    assert noticed > 40


def test_a_changed_number_in_a_zip_file_is_damage(torch, tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"weight": torch.full((1000,), 3.0)}, file)
    damaged = bytearray(file.read_bytes())
    place = damaged.index(np.full(4, 3, np.float32).tobytes()) + 123
    damaged[place] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"is damaged or cut short .*Bad CRC-32"):
        read_torch(file)


def test_changed_bits_in_a_legacy_file_end_in_no_other_error(torch, tmp_path):
    file = tmp_path / "x.pth"
    save_legacy(tensors_of_all_types(), file)
    refused = 0
    for damaged in flip_bits(file.read_bytes(), 400):
        file.write_bytes(damaged)
        try:
            read_torch(file)
        except InputError:
            refused += 1
    assert refused > 40


def test_other_zip_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(InputError, match=r"not one of torch\.save: it has no data\.pkl"):
        read_torch(tmp_path / "x.npz")
