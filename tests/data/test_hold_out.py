"""Examples that are set apart."""

import dataclasses
from pathlib import Path

import pytest

from fcn_jax.data.hold_out import HELD_OUT, set_apart
from fcn_jax.data.sources.source import Files, Found
from fcn_jax.errors import InputError


def make_found(names, split="train", **others):
    def list_files(names):
        return [Files(name, f"{name}.jpg", f"{name}.png") for name in names]

    return Found(("a",), {split: list_files(names), **{name: list_files(names) for name, names in others.items()}})


def names(found, split):
    return [example.name for example in found.splits[split]]


def test_about_the_share_is_set_apart():
    all_names = [f"image_{place:04}" for place in range(1000)]
    found = set_apart(make_found(all_names, val=["v"]), "train", 0.1)
    kept, held = names(found, "train"), names(found, HELD_OUT)
    assert sorted(kept + held) == all_names
    assert kept == sorted(kept)
    assert 60 <= len(held) <= 140  # the standard deviation is 9.5
    assert names(found, "val") == ["v"]
    assert set(held) < set(names(set_apart(make_found(all_names), "train", 0.3), HELD_OUT))


def test_images_without_labels_stay():
    found = dataclasses.replace(make_found("abcdefgh"), unlabelled={"test": [Path("x.jpg")]})
    assert set_apart(found, "train", 0.5).unlabelled == found.unlabelled


def test_new_examples_move_no_other():
    some, more = [f"{place}" for place in range(100)], [f"{place}" for place in range(150)]
    before = names(set_apart(make_found(some), "train", 0.2), HELD_OUT)
    assert before == names(set_apart(make_found(more), "train", 0.2), HELD_OUT)[: len(before)]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (make_found(["a"], "extra"), "takes from the split train, which is not there; there are extra: give"),
        (make_found(["a", "b"], **{HELD_OUT: ["c"]}), "there is a split held-out already"),
        (make_found(["a"]), "--data.hold-out 1e-09 takes 0 of the 1 examples of train"),
    ],
)
def test_what_cannot_be_set_apart(found, says):
    with pytest.raises(InputError, match=says):
        set_apart(found, "train", 1e-9)
