"""Pickles that want to do more than describe tensors."""

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import struct
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
import torch_files
from torch_files import FakeStorage, Malicious, OldTensor, Stored, TensorOn

from fcn_jax.errors import InputError
from fcn_jax.weights.torch_file import read_torch
from fcn_jax.weights.torch_pickle import Unknown, Unpickler, describe_unknown

both_formats = pytest.mark.parametrize("write", torch_files.WRITE.values(), ids=torch_files.WRITE)


@pytest.mark.peers
@both_formats
def test_code_in_a_pickle_does_not_run(torch, tmp_path, write):
    proof = tmp_path / "was_here"
    write(tmp_path / "x.pth", {"weight": OldTensor(0, (4,), (1,)), "more": Malicious(proof)})
    with pytest.raises(InputError, match=r"x\.pth has objects among its tensors.*: 'more' is posix\.system"):
        read_torch(tmp_path / "x.pth")
    write(tmp_path / "x.pth", {"state_dict": {"weight": OldTensor(0, (4,), (1,))}, "more": Malicious(proof)})
    arrays, _ = read_torch(tmp_path / "x.pth")
    np.testing.assert_array_equal(arrays["weight"], [0, 1, 2, 3])
    assert not proof.exists()
    pickle.loads(pickle.dumps(Malicious(proof)))  # which does run where it is trusted
    assert proof.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.FloatStorage.__init__", "copyreg._reconstructor"]
)
def test_no_other_name_is_given_out(tmp_path, name):
    module, _, attribute = name.partition(".")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", f"c{module}\n{attribute}\n.")
    with pytest.raises(InputError, match=f"no tensors by name.*: 'the content' is {name};"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.peers
def test_a_whole_network_is_refused(torch, tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"is torch\.nn\.modules\.container\.Sequential; save .*state_dict"):
        read_torch(tmp_path / "net.pth")


@pytest.mark.peers
@both_formats
@pytest.mark.parametrize(
    ("storage", "message"),
    [(Stored(dtype="O"), "a storage has the type 'O'"), (FakeStorage(), "in a OrderedDict, which is no storage")],
    ids=["type", "storage"],
)
def test_numbers_are_never_taken_for_objects(torch, tmp_path, write, storage, message):
    """Were the file's bytes addresses of objects, methods of these would run."""
    content = {"conv1.weight": TensorOn(storage), "other": OldTensor(0, (4,), (1,))}
    write(tmp_path / "x.pth", content, struct.pack("<QQ", id(None), id(None)))
    with pytest.raises(InputError, match=message):
        read_torch(tmp_path / "x.pth")


@pytest.mark.peers
@both_formats
@pytest.mark.parametrize("view", [(0, (5,), (1,)), (2, (3,), (1,)), (0, (2, 2), (4, 1)), (3, (2,), (-4,))])
def test_a_view_cannot_leave_its_storage(torch, tmp_path, write, view):
    write(tmp_path / "x.pth", {"weight": OldTensor(*view)})
    with pytest.raises(InputError, match=r"x\.pth is damaged or cut short"):
        read_torch(tmp_path / "x.pth")


class Settings(dict):
    """As the configurations of some trainers: a dictionary with attributes."""


class Shape(NamedTuple):
    height: int


class Colour(enum.Enum):
    RED = 1


class Arguments:
    """Is made with named arguments."""

    def __getnewargs_ex__(self):
        return (1,), {"b": 2}

    def __new__(cls, *_, **__):
        return super().__new__(cls)


def settings() -> Settings:
    result = Settings(a=1)
    result.depth = 50
    return result


OBJECTS = {
    "argparse.Namespace": argparse.Namespace(lr=0.1, data=[{1}]),
    "collections.defaultdict": collections.defaultdict(list, a=[1]),
    "collections.deque": collections.deque([1, 2]),
    "datetime.date": datetime.date(2020, 1, 1),
    "functools.partial": functools.partial(int, 2),
    "pathlib.PosixPath": pathlib.PosixPath("/x"),
    "numpy._core.multiarray.scalar": np.float64(2),
    "numpy._core.multiarray._reconstruct": np.arange(3),
    f"{__name__}.Settings": settings(),
    f"{__name__}.Shape": Shape(3),
    f"{__name__}.Colour": Colour.RED,
    f"{__name__}.Arguments": Arguments(),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_not_known_is_not_built(name, protocol):
    content = pickle.dumps({"first": 1, "x": OBJECTS[name], "last": [OBJECTS[name], "end"]}, protocol)
    read = Unpickler(io.BytesIO(content)).load()
    assert isinstance(read["x"], Unknown)
    if name != f"{__name__}.Arguments" or protocol == 4:  # before protocol 4 it is a functools.partial
        assert describe_unknown(read["x"]) == name
    assert (read["first"], read["last"][1]) == (1, "end")


def test_the_classes_of_networks_are_not_known(tmp_path):
    """torch before 1.6 refers to them as "module", with their source."""
    pickled = b"(X\x06\x00\x00\x00modulecnets\nNet\nX\x06\x00\x00\x00net.pyX\x04\x00\x00\x00codetQ)R."
    assert describe_unknown(Unpickler(io.BytesIO(b"\x80\x02" + pickled)).load()) == "nets.Net"


def test_changes_by_a_pickle_do_not_outlive_it():
    """BUILD sets attributes of whatever a pickle can name."""
    code = b"ctorch._utils\n_rebuild_parameter\n}U\x07changedK\x01sb."
    first, second = (Unpickler(io.BytesIO(code)) for _ in range(2))
    first.load()
    rebuild = ("torch._utils", "_rebuild_parameter")
    assert first.known[rebuild].changed == 1
    assert not hasattr(second.known[rebuild], "changed")


def test_a_part_of_a_storage_is_refused():
    """PyTorch before 0.4 wrote them, with the part's name, place and length at the end."""
    reader = Unpickler(io.BytesIO())
    whole = ("storage", "float32", "0", "cpu", 4, None)
    assert reader.persistent_load(whole).key == "0"
    with pytest.raises(ValueError, match="parts of storages"):
        reader.persistent_load((*whole[:-1], ("1", 2, 2)))
