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


def test_the_share_is_set_apart():
    all_names = [f"image_{place:04}" for place in range(1000)]
    found = set_apart(make_found(all_names, val=["v"]), "train", 0.1)
    kept, held = names(found, "train"), names(found, HELD_OUT)
    assert sorted(kept + held) == all_names
    assert kept == sorted(kept)
    assert len(held) == 100
    assert names(found, "val") == ["v"]
    assert set(held) < set(names(set_apart(make_found(all_names), "train", 0.3), HELD_OUT))


def test_images_without_labels_stay():
    found = dataclasses.replace(make_found("abcdefgh"), unlabelled={"test": [Path("x.jpg")]})
    assert set_apart(found, "train", 0.5).unlabelled == found.unlabelled


@pytest.mark.parametrize(("count", "share", "expected"), [(20, 0.2, 4), (20, 0.17, 3), (3, 0.01, 1), (2, 0.5, 1)])
def test_the_number_is_rounded_and_at_least_one(count, share, expected):
    found = set_apart(make_found([f"{place}" for place in range(count)]), "train", share)
    assert len(names(found, HELD_OUT)) == expected


def test_which_ones_follows_from_their_names_alone():
    some = [f"{place}" for place in range(100)]
    held = [names(set_apart(make_found(order), "train", 0.2), HELD_OUT) for order in (some, some[::-1])]
    assert held[0] == held[1][::-1] != some[:20]


def test_a_new_example_moves_at_most_one_other():
    all_names = [f"{place}" for place in range(150)]
    held = [set(names(set_apart(make_found(all_names[:count]), "train", 0.2), HELD_OUT)) for count in range(5, 151)]
    moved = [
        len((before ^ after) - {new}) for before, after, new in zip(held[:-1], held[1:], all_names[5:], strict=True)
    ]
    assert max(moved) == 1
    assert sum(moved) < len(moved) / 2  # a fifth of new ones push one out, and every fifth lets one in


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (make_found(["a"], "extra"), "takes from the split train, which is not there; there are extra: give"),
        (make_found(["a", "b"], **{HELD_OUT: ["c"]}), "there is a split held-out already"),
        (make_found(["a"]), "--data.hold-out 1e-09 takes 1 of the 1 examples of train"),
    ],
)
def test_what_cannot_be_set_apart(found, says):
    with pytest.raises(InputError, match=says):
        set_apart(found, "train", 1e-9)
