"""Pickles that want to do more than describe tensors."""

import io
import pickle
import struct
import zipfile

import pytest
import torch_files
from torch_files import FakeStorage, Malicious, OldTensor, Stored, TensorOn

from fcn_jax.errors import InputError
from fcn_jax.weights.torch_file import read_torch
from fcn_jax.weights.torch_pickle import Unpickler

both_formats = pytest.mark.parametrize("write", torch_files.WRITE.values(), ids=torch_files.WRITE)


@pytest.mark.peers
@both_formats
def test_code_in_a_pickle_does_not_run(torch, tmp_path, write):
    proof = tmp_path / "was_here"
    write(tmp_path / "x.pth", {"weight": OldTensor(0, (4,), (1,)), "more": Malicious(proof)})
    with pytest.raises(InputError, match=r"x\.pth refers to posix\.system, .* could run code"):
        read_torch(tmp_path / "x.pth")
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
    with pytest.raises(InputError, match=f"refers to {name}, which"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.peers
def test_a_whole_network_is_refused(torch, tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"refers to torch\.nn\.modules\.container\.Sequential.*state_dict"):
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


def test_changes_by_a_pickle_do_not_outlive_it(tmp_path):
    """BUILD sets attributes of whatever a pickle can name."""
    code = b"ctorch._utils\n_rebuild_parameter\n}U\x07changedK\x01sb."
    first, second = (Unpickler(io.BytesIO(code), tmp_path) for _ in range(2))
    first.load()
    rebuild = ("torch._utils", "_rebuild_parameter")
    assert first.known[rebuild].changed == 1
    assert not hasattr(second.known[rebuild], "changed")
