"""SBD in small, alone and beside VOC."""

import gzip
import shutil
import tarfile
from itertools import chain

import numpy as np
import pytest
from archive_server import serve, take_place
from drawn import picture, save
from matlab_writer import save_sbd
from PIL import Image

from fcn_jax.data import dataset as datasets
from fcn_jax.data.sources import sbd, voc
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

VOC = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
# A name of each kind: in VOC's train, in VOC's val, in neither.
SBD = {"train": ["2008_000008", "2007_000032", "2007_000042"], "val": ["2008_000002", "2007_000033", "2007_000039"]}
VOC_2011 = ["2007_000033", "2007_000042"]


def draw_mask(seed):
    return np.random.default_rng(seed).integers(0, 21, (6, 9), np.uint8)


def write_sbd(folder):
    """Write SBD's folder `dataset`, and return the mask of each name."""
    folder.mkdir(parents=True)
    for split, names in SBD.items():
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
    masks = {name: draw_mask(seed) for seed, name in enumerate(chain(*SBD.values()))}
    for name, mask in masks.items():
        save(picture(), folder / f"img/{name}.jpg")
        save_sbd(folder / f"cls/{name}.mat", mask)
    return masks


def write_voc(folder):
    """Write the folder VOC2012, and return the mask of each name."""
    (folder / voc.LISTS).mkdir(parents=True)
    for split, names in VOC.items():
        (folder / voc.LISTS / f"{split}.txt").write_text("\n".join(names))
    masks = {name: draw_mask(100 + seed) for seed, name in enumerate(chain(*VOC.values()))}
    for name, mask in masks.items():
        save(picture(), folder / f"JPEGImages/{name}.jpg")
        save(mask, folder / f"SegmentationClass/{name}.png")
    return masks


def write_2011(folder):
    (folder / voc.LISTS).mkdir(parents=True)
    (folder / voc.LISTS / "val.txt").write_text("\n".join(VOC_2011))


def read(dataset, split):
    return {example.name: example.label for example in dataset.source(split)}


def assert_equal(read, masks, names):
    assert list(read) == names
    for name in names:
        np.testing.assert_array_equal(read[name], masks[name])


@pytest.mark.parametrize("where", [".", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_sbd(tmp_path, where):
    masks = write_sbd(tmp_path / "data/benchmark_RELEASE/dataset")
    data = datasets.prepare("sbd", tmp_path / "data" / where, tmp_path / "cache")
    assert data.splits == {"train": 3, "val": 3}
    for split, names in SBD.items():
        assert_equal(read(data, split), masks, names)
    assert data.class_names == voc.CLASS_NAMES


@pytest.mark.parametrize("where", [("VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"), ("VOC2012", "dataset")])
def test_trainaug_of_voc_and_sbd(tmp_path, where):
    of_voc, of_sbd = write_voc(tmp_path / where[0]), write_sbd(tmp_path / where[1])
    data = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 2, "trainaug": 4}
    more = [name for names in SBD.values() for name in names if name not in VOC["train"] + VOC["val"]]
    assert more == ["2008_000008", "2008_000002"]
    assert_equal(read(data, "trainaug"), {**of_sbd, **of_voc}, [*VOC["train"], *more])
    image = next(example.image for example in data.source("trainaug") if example.name == more[0])
    np.testing.assert_array_equal(image, np.asarray(Image.open(tmp_path / where[1] / f"img/{more[0]}.jpg")))


def test_trainaug_of_its_list_comes_first(tmp_path):
    masks = write_voc(tmp_path / "VOC2012")
    write_sbd(tmp_path / "dataset")
    (tmp_path / "VOC2012" / voc.LISTS / "trainaug.txt").write_text(VOC["train"][1])
    save(masks[VOC["train"][1]], tmp_path / f"VOC2012/SegmentationClassAug/{VOC['train'][1]}.png")
    assert datasets.prepare("voc2012", tmp_path, tmp_path / "cache").splits["trainaug"] == 1


@pytest.mark.parametrize("name", ["voc2012", "sbd"])
@pytest.mark.parametrize("where", ["VOC2011", "VOCdevkit/VOC2011", "TrainVal/VOCdevkit/VOC2011", "its list"])
def test_seg11valid(tmp_path, name, where):
    masks = write_voc(tmp_path / "VOCdevkit/VOC2012")
    write_sbd(tmp_path / "benchmark_RELEASE/dataset")
    if where == "its list":
        (tmp_path / "VOCdevkit/VOC2012" / voc.LISTS / "seg11valid.txt").write_text("2007_000033\n")
    else:
        write_2011(tmp_path / where)
    data = datasets.prepare(name, tmp_path, tmp_path / "cache")
    assert_equal(read(data, "seg11valid"), masks, ["2007_000033"])  # the other one is in SBD's train


def test_sbd_that_is_not_there(tmp_path):
    write_voc(tmp_path / "VOC2012")
    with pytest.raises(InputError, match=r"does not hold SBD; give --data.dir, which is the folder benchmark_RELEASE"):
        datasets.prepare("sbd", tmp_path, tmp_path / "cache")
    assert "trainaug" not in voc.find(Request(tmp_path, tmp_path)).splits


def test_damaged_and_missing_masks_are_listed_or_left_out(tmp_path):
    write_sbd(tmp_path / "dataset")
    damaged, missing = (tmp_path / f"dataset/cls/{name}.mat" for name in SBD["train"][:2])
    damaged.write_bytes(damaged.read_bytes()[:200])
    missing.unlink()
    with pytest.raises(InputError) as caught:
        datasets.prepare("sbd", tmp_path, tmp_path / "cache")
    text = str(caught.value)
    assert f"train: image {missing.stem}.jpg has no mask {missing.name}" in text
    assert f"train: mask {damaged.name} cannot be read as a MATLAB file with the variable GTcls.Segmentation (" in text
    data = datasets.prepare("sbd", tmp_path, tmp_path / "cache", skip_bad=True)
    assert data.splits == {"train": 1, "val": 3}


def test_real_masks_of_voc_are_kept_in_trainaug(voc_dir):
    """The list and masks of trainaug that others made: VOC's masks are VOC's, and SBD's have no void pixels."""
    root = voc_dir / "VOC2012"
    official = set((root / voc.LISTS / "train.txt").read_text().split())
    names = (root / voc.LISTS / "trainaug.txt").read_text().split()
    for name in names[::20]:
        mask = np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png"))
        assert (name in official) == bool((mask == 255).any())
        if name in official:
            np.testing.assert_array_equal(mask, np.asarray(Image.open(root / f"SegmentationClass/{name}.png")))


def test_classes_are_those_of_voc():
    assert sbd.SOURCE.outline.num_classes == (21,)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that has the archive, a small one, with the masks of instances, which are not used."""
    dataset = tmp_path / "packed/benchmark_RELEASE/dataset"
    write_sbd(dataset)
    shutil.copytree(dataset / "cls", dataset / "inst")
    with tarfile.open(tmp_path / "benchmark.tgz", "w:gz") as tar:
        tar.add(tmp_path / "packed/benchmark_RELEASE", "benchmark_RELEASE")
    monkeypatch.setenv("no_proxy", "*")
    with serve(tmp_path) as address:
        archive = take_place(sbd.ARCHIVE, f"{address}/benchmark.tgz", tmp_path / "benchmark.tgz")
        monkeypatch.setattr(sbd, "ARCHIVE", archive)
        yield dataset


def test_sbd_is_fetched(server, tmp_path):
    fetched = datasets.prepare("sbd", cache=tmp_path / "cache")
    given = datasets.prepare("sbd", server, tmp_path / "cache")
    assert fetched.splits == given.splits == {"train": 3, "val": 3}
    for split, names in SBD.items():
        assert_equal(read(fetched, split), read(given, split), names)
    (folder,) = (tmp_path / "cache/sbd/official").iterdir()
    assert sorted(path.name for path in (folder / "dataset").iterdir()) == ["cls", "img", "train.txt", "val.txt"]


def test_an_archive_of_sbd_that_is_damaged_leaves_no_folder(server, tmp_path, monkeypatch):
    file = tmp_path / "benchmark.tgz"
    whole = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    monkeypatch.setattr(sbd, "ARCHIVE", take_place(sbd.ARCHIVE, sbd.ARCHIVE.url, file))
    message = (
        r"benchmark.tgz cannot be unpacked into .*/official \(unexpected end of data\).* make room, or remove .*tgz,"
    )
    with pytest.raises(InputError, match=message):
        sbd.find(Request(None, tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache/sbd").iterdir() if path.is_dir()]


def test_links_and_paths_that_lead_out_of_an_archive_of_sbd_are_left_out(server, tmp_path, monkeypatch):
    file = tmp_path / "benchmark.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(server, "benchmark_RELEASE/dataset")
        up = tarfile.TarInfo("benchmark_RELEASE/dataset/img/../../../../../up.jpg")
        tar.addfile(up)
        link = tarfile.TarInfo("benchmark_RELEASE/dataset/img/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    monkeypatch.setattr(sbd, "ARCHIVE", take_place(sbd.ARCHIVE, sbd.ARCHIVE.url, file))
    sbd.find(Request(None, tmp_path / "cache"))
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 6
    assert not list(tmp_path.rglob("up.jpg"))
