"""Lists of examples: what is wrong with them, and their hashes."""

import os

import numpy as np

from fcn_jax.data.entries import hash_contents, hash_source, list_entries, list_problems
from fcn_jax.data.sources.source import Drawn, Files, Found


def make_source(root, times=(0, 1, 2, 3)):
    """A data set of two examples, whose files have 10 to 13 bytes and these times."""
    files = [root / name for name in ("images/a.jpg", "labels/a.png", "images/b.png", "labels/b.png")]
    for file, size, time in zip(files, range(10, 14), times, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
        os.utime(file, ns=(0, 1_700_000_000_000_000_000 + time))
    return Found(("ground", "tree"), {"train": [Files("a", *files[:2])], "val": [Files("b", *files[2:])]}, void=(9,))


def test_hashes_of_earlier_releases(tmp_path):
    """Prepared data of an earlier release is found again only if its folder has the same name."""
    found = make_source(tmp_path)
    entries = list_entries(found)
    assert hash_contents(found, entries) == "36742e02e3b3c3d8"
    assert hash_source(found, entries) == "651a7368dc0e0674"


def test_a_new_time_changes_the_source_and_not_the_contents(tmp_path):
    before, after = make_source(tmp_path / "one"), make_source(tmp_path / "two", times=(0, 1, 2, 4))
    assert hash_contents(before, list_entries(before)) == hash_contents(after, list_entries(after))
    assert hash_source(before, list_entries(before)) != hash_source(after, list_entries(after))


def test_what_is_drawn_changes_both_hashes():
    def hashes(value):
        def draw():
            return np.full((2, 2, 3), value, np.uint8), np.zeros((2, 2), np.uint8)

        found = Found(("a",), {"train": [Drawn("one", draw)]})
        return hash_contents(found, list_entries(found)), hash_source(found, list_entries(found))

    assert hashes(1) == hashes(1)
    assert not set(hashes(1)) & set(hashes(2))


def test_a_missing_file_has_no_size(tmp_path):
    found = make_source(tmp_path)
    (tmp_path / "labels/a.png").unlink()
    assert [[name for name, _, _ in entry.stats] for entry in list_entries(found)] == [["a.jpg"], ["b.png", "b.png"]]


def test_problems(tmp_path):
    one, two = Files("a", tmp_path, tmp_path), Files("b", tmp_path, tmp_path)
    found = Found(("x",), {"train": [one, two, one], "val": [one], "test": []})
    empty, twice = list_problems(list_entries(found), found.splits)
    assert empty.startswith("test: the split has no examples")
    assert twice.startswith("train: there are 2 examples 'a'")
    assert list_problems(list_entries(found)[1:4], ["train", "val"]) == []
