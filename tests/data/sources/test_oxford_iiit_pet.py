"""Oxford-IIIT Pet: small archives in the official layout, unpacked."""

import importlib.util
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archive_server import serve, take_place
from drawn import picture, save
from PIL import Image

from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources import oxford_iiit_pet
from fcn_jax.data.sources.oxford_iiit_pet import find
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

TRIMAP = np.array([[2, 2, 2, 2], [2, 3, 3, 3], [2, 3, 1, 1]], np.uint8)
LABEL = [[0, 0, 0, 0], [0, 255, 255, 255], [0, 255, 1, 1]]


@pytest.fixture
def tree(tmp_path):
    """Both archives, unpacked: lists with numbers behind the names, and files of macOS beside the trimaps."""
    packed = tmp_path / "packed"
    for name in ("Abyssinian_100", "boxer_2", "Egyptian_Mau_139", "pug_7"):
        save(picture(3, 4), packed / f"images/{name}.jpg")
        save(TRIMAP, packed / f"annotations/trimaps/{name}.png")
        (packed / f"annotations/trimaps/._{name}.png").write_bytes(b"\0\5\x16\7")
    # Some of the official files are not what their names say.
    Image.fromarray(picture(3, 4)).quantize(16).save(packed / "images/Egyptian_Mau_139.jpg", "GIF")
    Image.fromarray(picture(3, 4)).convert("RGBA").save(packed / "images/pug_7.jpg", "PNG")
    (packed / "annotations/trainval.txt").write_text("Abyssinian_100 1 1 1\nEgyptian_Mau_139 12 1 5\npug_7 26 2 17\n")
    (packed / "annotations/test.txt").write_text("boxer_2 9 2 5\n")
    for kind in ("images", "annotations"):
        with tarfile.open(tmp_path / f"{kind}.tar.gz", "w:gz") as tar:
            tar.add(packed / kind, kind)
        with tarfile.open(tmp_path / f"{kind}.tar.gz") as tar:
            tar.extractall(tmp_path / "data", filter="data")
    return tmp_path / "data"


def test_oxford_iiit_pet(tree, tmp_path):
    data = prepare("oxford_iiit_pet", tree, tmp_path / "cache")
    assert data.splits == {"train": 3, "test": 1}
    assert data.class_names == ("background", "pet")
    assert [example.name for example in data.source("train")] == ["Abyssinian_100", "Egyptian_Mau_139", "pug_7"]
    for split in data.splits:
        for name, image, label in data.source(split):
            assert label.tolist() == LABEL
            with Image.open(tree / f"images/{name}.jpg") as file:
                np.testing.assert_array_equal(image, file.convert("RGB"))


def test_what_is_not_there(tree, tmp_path):
    (tree / "annotations/trainval.txt").unlink()
    assert list(find(Request(tree, tmp_path)).splits) == ["test"]
    with pytest.raises(InputError, match=r"does not hold Oxford-IIIT Pet; give --data.dir, which is a folder with"):
        find(Request(tree / "images", tmp_path))


@pytest.fixture
def server(tree, tmp_path, monkeypatch):
    """A server that has both archives; they are in `tmp_path`, as `tree` makes them."""
    monkeypatch.setenv("no_proxy", "*")
    with serve(tmp_path) as address:
        names = [archive.url.rsplit("/", 1)[1] for archive in oxford_iiit_pet.ARCHIVES]
        small = [
            take_place(archive, f"{address}/{name}", tmp_path / name)
            for archive, name in zip(oxford_iiit_pet.ARCHIVES, names, strict=True)
        ]
        monkeypatch.setattr(oxford_iiit_pet, "ARCHIVES", small)
        yield address


def test_is_fetched(server, tree, tmp_path):
    fetched, given = prepare("oxford_iiit_pet", cache=tmp_path / "cache"), find(Request(tree, tmp_path))
    assert {split: [example.name for example in fetched.source(split)] for split in fetched.splits} == {
        split: [example.name for example in examples] for split, examples in given.splits.items()
    }
    folder = tmp_path / "cache/oxford_iiit_pet/official"
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
    wanted = {file.relative_to(tree).as_posix() for file in tree.rglob("[!.]*.*")}  # without what macOS left
    assert files == wanted
    for file in files:
        assert (folder / file).read_bytes() == (tree / file).read_bytes()
    for archive in (tmp_path / "cache/downloads").glob("*.gz"):  # they are not asked for again
        archive.unlink()
    assert find(Request(None, tmp_path / "cache")).splits.keys() == given.splits.keys()


def test_cannot_be_fetched(server, tmp_path, monkeypatch):
    first, second = oxford_iiit_pet.ARCHIVES
    monkeypatch.setattr(oxford_iiit_pet, "ARCHIVES", (first, second._replace(url=f"{server}/no")))
    with pytest.raises(InputError, match=r"404 File not found(.|\n)*give --data.dir, which is a folder with images/"):
        find(Request(None, tmp_path / "cache"))
    assert not (tmp_path / "cache/oxford_iiit_pet/official").exists()


def test_the_builder_of_tfds_reads_the_same_files_but_needs_tensorflow(tree, tmp_path, monkeypatch):
    """It encodes some images anew, of which Egyptian_Mau_139 is one, with TensorFlow."""
    monkeypatch.setattr(tfds.core.DatasetInfo, "initialize_from_bucket", lambda info: None)  # would ask the network
    unpacked = SimpleNamespace(downloaded_size=0, download_and_extract=lambda urls: dict.fromkeys(urls, str(tree)))
    builder = tfds.builder("oxford_iiit_pet", data_dir=tmp_path / "tfds", file_format="array_record")
    monkeypatch.setattr(builder, "_make_download_manager", lambda **_: unpacked)
    if importlib.util.find_spec("tensorflow") is None:
        with pytest.raises(ModuleNotFoundError, match="tensorflow"):
            builder.download_and_prepare()
    listed = tree / "annotations/trainval.txt"
    listed.write_text("".join(line for line in listed.read_text().splitlines(True) if "Egyptian_Mau_139" not in line))
    builder.download_and_prepare()

    ours = prepare("oxford_iiit_pet", tree, tmp_path / "cache")
    for split in ours.splits:
        theirs = {record["file_name"].decode(): record for record in builder.as_data_source(split)}
        assert sorted(theirs) == sorted(f"{name}.jpg" for name, *_ in ours.source(split))  # theirs are shuffled
        for name, image, label in ours.source(split):
            record = theirs[f"{name}.jpg"]
            np.testing.assert_array_equal(image, record["image"][..., :3])  # theirs may have an alpha channel
            np.testing.assert_array_equal(label, np.array([99, 1, 0, 255])[record["segmentation_mask"][..., 0]])
