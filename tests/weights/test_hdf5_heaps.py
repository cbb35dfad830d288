"""Heaps of HDF5 files that the library would not come to the end of."""

import struct

import pytest
from faults.weight_surfaces import hdf5

from fcn_jax.errors import InputError
from fcn_jax.weights.hdf5_heaps import HEAP, require_ending_heaps
from fcn_jax.weights.keras import read


@pytest.mark.parametrize("options", [{"numbered": False}, {"numbered": True}, {"numbered": True, "libver": "latest"}])
def test_free_space_of_no_size(tmp_path, options):
    content = bytearray(hdf5(**options))
    (tmp_path / "sound.h5").write_bytes(content)
    require_ending_heaps(tmp_path / "sound.h5")
    place = content.index(HEAP) + 16
    while struct.unpack_from("<H", content, place)[0]:  # to the free space at the end
        place += 16 + (struct.unpack_from("<Q", content, place + 8)[0] + 7) // 8 * 8
    content[place + 8 : place + 16] = bytes(8)
    (tmp_path / "endless.h5").write_bytes(content)
    with pytest.raises(InputError, match=f"endless.h5 is damaged: byte {place} begins free space of no size"):
        read(tmp_path / "endless.h5")


def test_numbers_of_other_sizes(tmp_path):
    content = bytearray(hdf5(True))
    assert content[14] == 8
    content[14] = 4
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(InputError, match="its numbers do not have 8 bytes"):
        read(tmp_path / "x.h5")
