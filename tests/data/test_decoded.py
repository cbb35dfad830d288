"""The file of decoded images: its contents, and that nothing else is ever read from it."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from fcn_jax.data import dataset as datasets
from fcn_jax.data import decoded as module
from fcn_jax.data.dataset import Dataset
from fcn_jax.data.decoded import open_decoded
from fcn_jax.errors import InputError

SIZES = [(6, 9), (11, 4), (1, 1), (30, 40), (5, 5), (8, 3), (9, 9)]


def files(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and label of each example of the split, decoded here."""
    return [
        (np.array(Image.open(root / f"images/train/{i}.jpg")), np.array(Image.open(root / f"labels/train/{i}.png")))
        for i in range(len(SIZES))
    ]


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder data set of images of several sizes."""
    generator, root = np.random.default_rng(0), tmp_path / "own"
    for index, size in enumerate(SIZES):
        for kind, suffix, shape in (("images", "jpg", (*size, 3)), ("labels", "png", size)):
            file = root / kind / "train" / f"{index}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 3 if kind == "labels" else 256, shape).astype(np.uint8)).save(file)
    (root / "classes.txt").write_text("ground\ntree\nwater\n")
    return root


@pytest.fixture
def dataset(root, tmp_path) -> Dataset:
    return datasets.prepare("folder", root, tmp_path / "cache")


def is_right(dataset: Dataset, root: Path) -> bool:
    found = open_decoded(dataset, "train")
    for index, (image, label) in enumerate(files(root)):
        np.testing.assert_array_equal(found[index].image, image)
        np.testing.assert_array_equal(found[index].label, label)
        assert found[index].name == str(index)
    return len(found) == len(SIZES)


def test_the_file_is_the_pixels_one_after_the_other(dataset, root):
    assert is_right(dataset, root)
    data = (dataset.folder / "decoded" / "train.uint8").read_bytes()
    assert data == b"".join(image.tobytes() + label.tobytes() for image, label in files(root))
    assert sorted(os.listdir(dataset.folder / "decoded")) == ["lock", "train.json", "train.uint8"]


def test_it_is_read_like_the_source(dataset, root):
    ours, source = open_decoded(dataset, "train"), dataset.source("train")
    for index in (0, 3, -1):
        for mine, theirs in zip(ours[index], source[index], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for index in (len(SIZES), -len(SIZES) - 1):
        with pytest.raises(IndexError):
            ours[index]
    assert not ours[0].image.flags.writeable
    with pytest.raises(InputError, match="has no split 'test'"):
        open_decoded(dataset, "test")


def test_it_is_written_once(dataset, monkeypatch):
    open_decoded(dataset, "train")
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("written again"))
    open_decoded(dataset, "train")


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE = {
    "first bit": lambda f: flip(f / "train.uint8", 0),
    "a bit of a label": lambda f: flip(f / "train.uint8", 6 * 9 * 3 + 2),
    "last bit": lambda f: flip(f / "train.uint8", -1),
    "cut short": lambda f: os.truncate(f / "train.uint8", 100),
    "empty": lambda f: os.truncate(f / "train.uint8", 0),
    "longer": lambda f: (f / "train.uint8").write_bytes((f / "train.uint8").read_bytes() + b"x"),
    "gone": lambda f: (f / "train.uint8").unlink(),
    "no index": lambda f: (f / "train.json").unlink(),
    "index cut short": lambda f: os.truncate(f / "train.json", 50),
    "index is another thing": lambda f: (f / "train.json").write_text("[]"),
    "other names": lambda f: edit(f / "train.json", names=[str(i) for i in range(1, 8)]),
    "sizes the other way round": lambda f: edit(f / "train.json", sizes=[[w, h] for h, w in SIZES]),
    "no sizes": lambda f: edit(f / "train.json", sizes=None),
    "no check": lambda f: edit(f / "train.json", index=0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_written_again(dataset, root, damage):
    open_decoded(dataset, "train")
    damage(dataset.folder / "decoded")
    assert is_right(dataset, root)


def test_files_of_another_pillow_are_written_again(dataset, root, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(PIL, "__version__", "0.0")
        open_decoded(dataset, "train")
    file = dataset.folder / "decoded" / "train.json"
    assert json.loads(file.read_text())["about"][-1] == "0.0"
    assert is_right(dataset, root)
    assert json.loads(file.read_text())["about"][-1] == PIL.__version__


def test_files_of_other_data_are_written_again(dataset, root):
    open_decoded(dataclasses.replace(dataset, contents="other"), "train")
    file = dataset.folder / "decoded" / "train.json"
    assert json.loads(file.read_text())["about"][0] == "other"
    assert is_right(dataset, root)
    assert json.loads(file.read_text())["about"][0] == dataset.contents


KILLED = """
import os, signal, sys
from fcn_jax.data import dataset as datasets
from fcn_jax.data import decoded as module

module.THREADS = 1
read = datasets.Source.__getitem__

def deadly(self, index):
    if str(index) == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, index)

datasets.Source.__getitem__ = deadly
if sys.argv[3] == "index":
    module._compute_checksum = lambda index: os.kill(os.getpid(), signal.SIGKILL)
module.open_decoded(datasets.prepare("folder", sys.argv[1], sys.argv[2]), "train")
"""


@pytest.mark.parametrize("when", ["4", "index"])
def test_killed_while_writing(dataset, root, tmp_path, when):
    command = [sys.executable, "-c", KILLED, str(root), str(tmp_path / "cache"), when]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = os.listdir(dataset.folder / "decoded")
    assert "train.json" not in left
    assert ("train.uint8" in left) == (when == "index")
    assert is_right(dataset, root)
    assert sorted(os.listdir(dataset.folder / "decoded")) == ["lock", "train.json", "train.uint8"]


def test_a_full_disk(dataset):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written to .*decoded .*4 bytes per pixel"):
            open_decoded(dataset, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(dataset.folder / "decoded") == ["lock"]


def test_a_disk_that_keeps_something_else(dataset, monkeypatch):
    monkeypatch.setattr(module, "_write", lambda stem, about, source: stem.with_suffix(".uint8").write_bytes(b"x"))
    with pytest.raises(InputError, match=r"train\.uint8 differs from what was just written"):
        open_decoded(dataset, "train")


def test_without_locks_the_file_of_another_process_is_taken(dataset, root, monkeypatch):
    """Both write under the same temporary name, and the second one finds it renamed."""
    write = module._write

    def write_late(*arguments):
        write(*arguments)
        raise FileNotFoundError(2, "No such file or directory", "train.uint8.tmp")

    monkeypatch.setattr(module, "_write", write_late)
    assert is_right(dataset, root)
