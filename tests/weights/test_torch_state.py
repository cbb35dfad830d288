"""The entry of a training program's file that holds the network."""

import argparse
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from fcn_jax.errors import InputError
from fcn_jax.weights.torch_file import read_torch
from fcn_jax.weights.torch_pickle import Storage, Tensor, Unpickler
from fcn_jax.weights.torch_state import find_state

FILE = Path("x.pth")
TENSOR = Tensor(Storage("0", "float32"), 0, (2,), (1,))
OTHER = TENSOR._replace(offset=7)
ARGUMENTS = Unpickler(BytesIO(pickle.dumps(argparse.Namespace(lr=0.1)))).load()
OPTIMIZER = {"state": {0: {"momentum_buffer": OTHER}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state", "model_state_dict", "net", "weights"])
def test_the_network_is_found_beside_other_things(name):
    inner = {"a": TENSOR, "steps": 3}
    content = {"epoch": 3, "args": ARGUMENTS, "optimizer": OPTIMIZER, name: inner, "scaler": {}, "hyper": {"lr": 0.1}}
    assert find_state(content, FILE) == ({"a": TENSOR}, f"entry {name!r}")
    outer = {"model": content, "a": OTHER}
    assert find_state(outer, FILE) == ({"a": TENSOR}, f"entry 'model', entry {name!r}")


def test_tensors_at_the_top_have_no_place():
    content = {"a": TENSOR, "model": {"depth": 50, "width": {}}, "state_dict": None, 0: OTHER}
    assert find_state(content, FILE) == ({"a": TENSOR}, "")


def test_a_lone_tensor_at_the_top_does_not_hide_the_network():
    content = {"best_acc": OTHER, "net": {"a": TENSOR, "b": OTHER}}
    assert find_state(content, FILE) == ({"a": TENSOR, "b": OTHER}, "entry 'net'")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("state_dict_ema", "state_dict"),  # timm
        ("model", "model_ema"),  # torchvision, DeiT, ConvNeXt
        ("state_dict", "ema_state_dict"),  # OpenMMLab
    ],
)
def test_of_several_networks_the_program_s_choice_is_taken_and_told(first, second):
    content = {second: {"a": OTHER}, "optimizer": OPTIMIZER, first: {"a": TENSOR}}
    assert find_state(content, FILE) == ({"a": TENSOR}, f"entry {first!r}, not {second!r}")
    # Without its tensors, or as the same dictionary, an entry is no choice.
    assert find_state(content | {first: {}}, FILE) == ({"a": OTHER}, f"entry {second!r}")
    assert find_state({first: content[first], second: content[first]}, FILE).place == f"entry {first!r}"


def test_unnamed_networks_are_refused_if_there_are_several():
    content = {"generator": {"a": TENSOR}, "discriminator": {"a": TENSOR}}
    with pytest.raises(InputError, match=r"in several entries, 'generator', 'discriminator', .*; save the weights"):
        find_state(content, FILE)


def test_dictionaries_that_contain_themselves_end():
    content = {"a": TENSOR}
    content |= {"model": content}
    assert find_state(content, FILE) == ({"a": TENSOR}, "")
    last = content = {}
    for _ in range(50):  # each of them in two ways: 2 ** 50 paths
        inner = {}
        content |= {"model": inner, "state_dict": inner}
        content = inner
    assert find_state(last, FILE).tensors == {}


def test_an_object_in_the_place_of_a_tensor_is_named():
    with pytest.raises(InputError, match=r"x\.pth has objects among its tensors, .*: 'b' is argparse\.Namespace; save"):
        find_state({"state_dict": {"a": TENSOR, "b": ARGUMENTS}}, FILE)
    for content in (ARGUMENTS, type(ARGUMENTS), {"model": ARGUMENTS}, {"model": {"a": ARGUMENTS}}):
        with pytest.raises(InputError, match=r"has no tensors by name, but objects, .* is argparse\.Namespace"):
            find_state(content, FILE)


@pytest.mark.peers
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_a_training_is_read(torch, tmp_path, legacy):
    """As torchvision's reference scripts save it: with the parsed arguments."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    content = {
        "model": net.state_dict(),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "lr_scheduler": {"lr_lambdas": [net], "last_epoch": 3},
        "epoch": 3,
        "args": argparse.Namespace(device=torch.device("cpu"), output=tmp_path, size=torch.Size([3]), at=np.float32(2)),
        "model_ema": {f"module.{name}": tensor for name, tensor in net.state_dict().items()},
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    arrays, place = read_torch(tmp_path / "x.pth")
    assert place == "entry 'model', not 'model_ema'"
    assert list(arrays) == list(content["model"])
    for name, tensor in content["model"].items():
        assert arrays[name].tolist() == tensor.tolist()
