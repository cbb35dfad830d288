"""The image files of a split."""

import numpy as np
import pytest

from fcn_jax.config import DataConfig, DataOptions
from fcn_jax.data.dataset import find_configured
from fcn_jax.data.sources.source import Drawn, Files, Found, Outlined, Slice
from fcn_jax.data.split_images import list_images
from fcn_jax.errors import InputError


@pytest.fixture
def found(tmp_path) -> Found:
    """A split of each kind; image c is in none, and there is no file of image d."""
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    image = lambda name: tmp_path / f"{name}.jpg"  # noqa: E731
    draw = lambda: (np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8))  # noqa: E731
    splits = {
        "files": [Files(name, image(name), tmp_path / "no.png") for name in "bab"],
        "outlined": [Outlined("a", image("a"), tmp_path / "a.json", (1, 1), lambda: draw()[1])],
        "drawn": [Drawn("a", draw)],
        "sliced": [Slice("a", tmp_path / "a.mat", 0, "images", "masks", 1)],
    }
    return Found(("x",), splits, unlabelled={"test": [image("b"), image("a")], "torn": [image("a"), image("d")]})


def test_images_are_listed_in_order_and_once(found):
    assert [file.stem for file in list_images("own", found, "files")] == ["b", "a"]
    assert [file.stem for file in list_images("own", found, "outlined")] == ["a"]
    assert [file.stem for file in list_images("own", found, "test")] == ["b", "a"]


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("tes", r"own has no split 'tes' here; it has files, outlined, drawn, sliced, test, torn: give one of them"),
        ("drawn", r"the images of own are no files of their own, so its split 'drawn' cannot be segmented"),
        ("sliced", r"the images of own are no files of their own"),
        ("torn", r"1 of 2 images of own torn are not there, the first is .*/d\.jpg; unpack the archive"),
    ],
)
def test_what_cannot_be_listed(found, split, says):
    with pytest.raises(InputError, match=says):
        list_images("own", found, split)


def test_a_split_that_is_held_out(tree):
    found = find_configured(DataConfig("folder", hold_out=0.4), DataOptions(tree))
    held, kept = (list_images("folder", found, split) for split in ("held-out", "train"))
    assert held
    assert sorted(held + kept) == sorted((tree / "images/train").iterdir())
