"""Archives for test servers: what they have, and what is refused."""

import fnmatch
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.labels import palette
from fcn_jax.data.sources import get_source
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.submission import choose_folder, write_submission
from fcn_jax.inference.visualize import save_grey_png, save_palette_png

VALUES = np.array([7, 8, 11], np.uint8)
INDEXED, GREY = Outputs(palette(3)), Outputs(palette(3), values=VALUES)


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Images of two sizes, and folders with their masks: `indexed` and `grey`."""
    for folder in ("in", "indexed", "grey"):
        (tmp_path / folder).mkdir()
    files = []
    for name, shape in (("b", (4, 7)), ("a", (9, 3))):
        file = tmp_path / "in" / f"{name}.jpg"
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(file)
        class_map = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 3
        save_palette_png(class_map, palette(3), tmp_path / "indexed" / f"{name}.png")
        save_grey_png(VALUES[class_map], tmp_path / "grey" / f"{name}.png")
        files.append(file)
    return files


def class_map(content: bytes) -> tuple[str, list]:
    with Image.open(io.BytesIO(content)) as picture:
        return picture.mode, np.asarray(picture).ravel().tolist()


def test_a_tar_archive_has_the_folders_of_the_development_kit(tmp_path, images):
    """Names, sizes and values are those that VOCinit.m and VOCevalseg.m read."""
    target = tmp_path / "voc.tar.gz"
    folder = choose_folder(get_source("voc2012"), target, "test", None)
    write_submission(images, tmp_path / "indexed", INDEXED, target, folder)
    with tarfile.open(target, "r:gz") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
        assert all(member.isfile() and member.mode == 0o644 and member.mtime > 1.7e9 for member in archive)
    root = "results/VOC2012/Segmentation/comp6_test_cls"
    assert list(members) == [f"{root}/b.png", f"{root}/a.png"]
    for name, shape in (("b", (4, 7)), ("a", (9, 3))):
        mode, values = class_map(members[f"{root}/{name}.png"])
        assert (mode, values) == ("P", [i % 3 for i in range(shape[0] * shape[1])])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["grey", "in", "indexed", "voc.tar.gz"]


def test_a_zip_archive_has_the_numbers_of_the_data_set(tmp_path, images):
    target = tmp_path / "cityscapes.zip"
    folder = choose_folder(get_source("cityscapes"), target, "test", None)
    write_submission(images, tmp_path / "grey", GREY, target, folder, workers=1)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["b.png", "a.png"]
        assert class_map(archive.read("b.png")) == ("L", [(7, 8, 11)[i % 3] for i in range(28)])
    # The pattern of evalPixelLevelSemanticLabeling.py, for the names that the official images give.
    assert fnmatch.fnmatch("berlin_000000_000019_leftImg8bit.png", "berlin_000000_000019*.png")


@pytest.mark.parametrize(
    ("name", "file", "competition", "says"),
    [
        ("camvid", "c.tgz", None, "camvid has no test server, so there is no submission; leave --submission out"),
        ("voc2012", "v.zip", None, r"submission is v\.zip; the server of voc2012 takes \.tgz or \.tar\.gz"),
        ("ade20k", "a.tgz", None, r"submission is a\.tgz; the server of ade20k takes \.zip"),
        ("ade20k", "a.zip", "comp5", "the server of ade20k has no competitions, so leave --competition out"),
        ("voc2012", "v.tgz", "comp3", "competition is comp3; the server of voc2012 has comp6, comp5"),
    ],
)
def test_what_a_server_does_not_take(name, file, competition, says):
    with pytest.raises(InputError, match=says):
        choose_folder(get_source(name), Path(file), "test", competition)


def test_the_folder_names_competition_and_split():
    folder = choose_folder(get_source("voc2012"), Path("v.tgz"), "val", "comp5")
    assert folder == "results/VOC2012/Segmentation/comp5_val_cls"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda mask: mask.unlink(), r"a\.png cannot be read \(.*; the same command with --overwrite"),
        (lambda mask: mask.write_bytes(mask.read_bytes()[:-20]), r"a\.png cannot be read \("),
        (
            lambda mask: save_palette_png(np.zeros((3, 9), np.uint8), palette(3), mask),
            r"a\.png has 9x3 pixels, and its image a\.jpg 3x9: they must be the same; remove the EXIF",
        ),
        (
            lambda mask: save_palette_png(np.full((9, 3), 255, np.uint8), palette(3), mask),
            r"a\.png has the values 255; the server takes a palette PNG with indices of the 3 classes",
        ),
        (
            lambda mask: save_palette_png(np.arange(27, dtype=np.uint8).reshape(9, 3) % 5, palette(5), mask),
            r"a\.png has the values 3, 4; the server takes",
        ),
        (
            lambda mask: save_grey_png(np.zeros((9, 3), np.uint8), mask),
            r"a\.png has mode L; the server takes a palette",
        ),
    ],
)
def test_a_mask_that_the_server_would_refuse_is_not_packed(tmp_path, images, spoil, says):
    target = tmp_path / "voc.tgz"
    target.write_bytes(b"as before")
    spoil(tmp_path / "indexed" / "a.png")
    with pytest.raises(InputError, match=says):
        write_submission(images, tmp_path / "indexed", INDEXED, target, "results")
    assert target.read_bytes() == b"as before"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_grey_mask_has_the_numbers_of_classes_only(tmp_path, images):
    save_grey_png(np.full((9, 3), 9, np.uint8), tmp_path / "grey" / "a.png")
    with pytest.raises(InputError, match=r"has the values 9; the server takes a grey PNG with values of the 3 classes"):
        write_submission(images, tmp_path / "grey", GREY, tmp_path / "x.zip", "")


def test_a_full_disk_is_said(tmp_path, images, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"voc\.tgz cannot be written \(.*No space left.*another --submission"):
        write_submission(images, tmp_path / "indexed", INDEXED, tmp_path / "voc.tgz", "")
    assert not list(tmp_path.glob("voc*"))
