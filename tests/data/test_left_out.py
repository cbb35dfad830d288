"""Examples with missing or damaged files are left out if this is asked for, and counted and named."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
from drawn import list_contents, picture, save

from fcn_jax import cli
from fcn_jax.data import builder as builder_module
from fcn_jax.data import dataset as datasets
from fcn_jax.errors import InputError


def prepare(tree, skip_bad=True):
    return datasets.prepare("folder", tree, tree.parent / "cache", skip_bad=skip_bad)


def spoil(tree):
    """One of the three examples of train has no mask, another has a mask that is cut short."""
    (tree / "labels/train/a.png").unlink()
    mask = tree / "labels/train/c.png"
    mask.write_bytes(mask.read_bytes()[:40])


@pytest.mark.parametrize("shard", [None, 1])
def test_what_is_left_is_what_a_folder_without_them_has(tree, monkeypatch, shard):
    if shard:  # shards without an example
        monkeypatch.setattr(builder_module, "SHARD", shard)
    spoil(tree)
    found = prepare(tree)
    heading, *lines = found.left_out.splitlines()
    assert heading == "2 of 4 examples of folder are left out:"
    assert [line.split(".png")[0] for line in lines] == ["  train: mask a", "  train: mask c"]
    assert found.splits == {"train": 1, "val": 1}

    clean = tree.parent / "clean"
    shutil.copytree(tree, clean)
    for stem in "ac":
        for kind in ("images", "labels"):
            (clean / kind / "train" / f"{stem}.png").unlink(missing_ok=True)
    other = prepare(clean)
    assert other.left_out is None
    assert list_contents(found) == list_contents(other)
    assert found.contents == other.contents
    assert found.max_size == other.max_size
    assert found.pixels["train"].tolist() == other.pixels["train"].tolist()


def test_whoever_does_not_ask_for_it_gets_the_error_even_if_they_were_left_out_before(tree):
    spoil(tree)
    with pytest.raises(InputError, match="2 things are wrong with the 4 examples of folder"):
        prepare(tree, skip_bad=False)
    assert prepare(tree).left_out
    with pytest.raises(InputError, match="2 things are wrong with the 4 examples of folder"):
        prepare(tree, skip_bad=False)
    assert prepare(tree).splits["train"] == 1


def test_an_example_that_can_be_read_again_is_told(tree, monkeypatch):
    """The fault of a disk is gone, and the file has the size and the time that it had."""
    read = builder_module.read_tasks

    def fail(files, *arguments):
        if files[0].stem == "c":
            raise InputError(f"image {files[0]} cannot be read (Input/output error)")
        return read(files, *arguments)

    monkeypatch.setattr(builder_module, "read_tasks", fail)
    assert "can be read now" not in prepare(tree).left_out
    monkeypatch.undo()
    folder = tree.parent / "cache" / "folder"
    told = (
        rf"c\.png cannot be read .*\n1 of them can be read now; delete {folder}/\w+ to have the data prepared anew for"
    )
    assert re.search(told, prepare(tree).left_out)
    with pytest.raises(InputError, match=told):
        prepare(tree, skip_bad=False)
    shutil.rmtree(folder)
    assert prepare(tree, skip_bad=False).left_out is None


def test_a_split_of_which_nothing_is_left_is_an_error(tree):
    (tree / "images/val/d.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 thing is wrong .*\n  val: image d.png cannot be decoded"):
        prepare(tree)
    (tree / "images/val/d.png").unlink()
    with pytest.raises(InputError, match=r"val: (the split has no examples|mask d.png has no image)"):
        prepare(tree)
    assert not list((tree.parent / "cache").rglob("*.array_record*"))


def test_names_that_occur_twice_are_an_error_nevertheless(tree):
    save(picture(), tree / "images/train/a.bmp")
    with pytest.raises(InputError, match="2 examples 'a'"):
        prepare(tree)


def test_data_prepare_names_them(tree, capsys):
    spoil(tree)
    words = ["data", "prepare", "folder", "--dir", str(tree), "--cache", str(tree.parent / "cache")]
    cli.main([*words, "--on-bad-example", "skip"])
    printed = capsys.readouterr()
    assert "warning: 2 of 4 examples of folder are left out:\n  train: mask a.png" in printed.err
    assert "folder train: 1 images\n" in printed.out


def test_prepared_data_is_used_where_the_cache_cannot_be_written(tree, monkeypatch):
    monkeypatch.setattr(builder_module, "LISTED", 1)
    spoil(tree)
    listed = next(line for line in prepare(tree).left_out.splitlines() if line.startswith("and 1 more"))
    assert listed.startswith("and 1 more; all are listed in ")

    def fail(self, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fail)
    found = prepare(tree)
    assert found.left_out.endswith("\nand 1 more")
    assert found.splits == {"train": 1, "val": 1}
