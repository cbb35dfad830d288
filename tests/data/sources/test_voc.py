"""PASCAL VOC: a small one in its layouts, and the real one."""

import io
import shutil
import tarfile
from contextlib import nullcontext

import numpy as np
import pytest
from archive_server import serve, take_place
from drawn import mask, picture, save
from PIL import Image

from fcn_jax.data import dataset as datasets
from fcn_jax.data.labels import palette
from fcn_jax.data.sources import archive as archives
from fcn_jax.data.sources import voc
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

NAMES = {"train": ["2007_000001", "2007_000002"], "val": ["2007_000003"]}


def voc_tree(root, aug=False):
    """The official layout, in small: palette masks, and an image that no list names."""
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    for split, stems in NAMES.items():
        (base / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{s}\n" for s in stems))
        for stem in stems:
            save(picture(), base / f"JPEGImages/{stem}.jpg")
            image = Image.fromarray(mask(classes=21))
            image.putpalette(palette(256).tobytes())
            (base / "SegmentationClass").mkdir(exist_ok=True)
            image.save(base / f"SegmentationClass/{stem}.png")
    save(picture(), base / "JPEGImages/2007_000009.jpg")
    if aug:
        shutil.copytree(base / "SegmentationClass", base / "SegmentationClassAug")
        (base / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000002\n2007_000001")
    return base


def archive(root, name=voc.ARCHIVE.file, prefix="VOCdevkit/VOC2012"):
    file = root / name
    with tarfile.open(file, "w") as tar:
        tar.add(root / "VOCdevkit/VOC2012", prefix)
    return file


def assert_is_voc(data, base):
    assert data.splits == {"train": 2, "val": 1}
    for split, stems in NAMES.items():
        for stem, example in zip(stems, data.source(split), strict=True):
            assert example.name == stem
            np.testing.assert_array_equal(example.image, np.asarray(Image.open(base / f"JPEGImages/{stem}.jpg")))
            np.testing.assert_array_equal(example.label, np.asarray(Image.open(base / f"SegmentationClass/{stem}.png")))


@pytest.mark.parametrize("where", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_folders(tmp_path, where):
    base = voc_tree(tmp_path / "data")
    data = datasets.prepare("voc2012", tmp_path / "data" / where, tmp_path / "cache")
    assert_is_voc(data, base)
    np.testing.assert_array_equal(data.palette[[1, 20]], [[128, 0, 0], [0, 64, 128]])
    assert (data.class_names[0], data.class_names[15], len(data.class_names)) == ("background", "person", 21)


@pytest.mark.parametrize("where", [voc.ARCHIVE.file, "."])
def test_archive(tmp_path, where):
    base = voc_tree(tmp_path / "data")
    archive(tmp_path / "data")
    base = base.rename(tmp_path / "VOC2012")
    data = datasets.prepare("voc2012", tmp_path / "data" / where, tmp_path / "cache")
    assert_is_voc(data, base)
    (unpacked,) = (tmp_path / "cache/voc2012").glob("unpacked-*[0-9]")
    assert len(list(unpacked.rglob("*.jpg"))) == 3
    assert not list((tmp_path / "cache").rglob("*.part"))
    shutil.rmtree(data.folder)
    (unpacked / "VOC2012/JPEGImages/2007_000001.jpg").write_bytes(b"")  # so it is seen whether it unpacks again
    with pytest.raises(InputError, match=r"image 2007_000001.jpg cannot be decoded"):
        datasets.prepare("voc2012", tmp_path / "data" / where, tmp_path / "cache")


def test_archive_that_is_cut_short(tmp_path):
    voc_tree(tmp_path)
    file = archive(tmp_path, "VOC.tar")
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"VOC.tar cannot be unpacked .*unexpected end of data.* 1999639040"):
        datasets.prepare("voc2012", file, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("JPEGImages"))
    (tmp_path / "no.tar").write_text("no archive")
    with pytest.raises(InputError, match=r"no.tar cannot be unpacked .*truncated header"):
        datasets.prepare("voc2012", tmp_path / "no.tar", tmp_path / "cache")


def test_archive_is_unpacked_by_two_where_there_are_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "lock_file", lambda file: nullcontext(False))
    voc_tree(tmp_path)
    file, folder, extract = archive(tmp_path), tmp_path / "to", voc._extract

    def late(*arguments):
        extract(*arguments)
        monkeypatch.setattr(voc, "_extract", extract)
        voc._unpack(file, folder)

    monkeypatch.setattr(voc, "_extract", late)
    voc._unpack(file, folder)
    assert len(list(folder.rglob("*.jpg"))) == 3
    assert not list(tmp_path.glob("*.part"))


def test_seg11valid_where_its_list_is(tmp_path):
    base = voc_tree(tmp_path)
    (base / "ImageSets/Segmentation/seg11valid.txt").write_text("2007_000003\n")
    data = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 1, "seg11valid": 1}
    official = np.asarray(Image.open(base / "SegmentationClass/2007_000003.png"))
    np.testing.assert_array_equal(data.source("seg11valid")[0].label, official)


def test_images_without_labels(tmp_path):
    base = voc_tree(tmp_path)
    (base / "ImageSets/Segmentation/test.txt").write_text("2007_000009\n2007_000003\n")
    found = voc.find(Request(tmp_path, tmp_path))
    test = {"test": [base / f"JPEGImages/{name}.jpg" for name in ("2007_000009", "2007_000003")]}
    assert found.unlabelled == test
    data = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert (data.splits, data.unlabelled) == ({"train": 2, "val": 1}, {"test": 2})
    # The archive of the test images by itself, unpacked.
    for split in NAMES:
        (base / f"ImageSets/Segmentation/{split}.txt").unlink()
    shutil.rmtree(base / "SegmentationClass")
    found = voc.find(Request(tmp_path, tmp_path))
    assert (found.splits, found.unlabelled) == ({}, test)
    with pytest.raises(InputError, match=r"voc2012 has images without labels here, in test, and no others; `fcn-jax p"):
        datasets.prepare("voc2012", tmp_path, tmp_path / "cache")


def test_the_archive_of_images_without_labels(tmp_path):
    base = voc_tree(tmp_path / "data")
    for split in NAMES:
        (base / f"ImageSets/Segmentation/{split}.txt").unlink()
    (base / "ImageSets/Segmentation/test.txt").write_text("2007_000009\n")
    shutil.rmtree(base / "SegmentationClass")
    found = voc.find(Request(archive(tmp_path / "data", "VOC2012test.tar"), tmp_path / "cache"))
    (image,) = found.unlabelled["test"]
    assert (found.splits, image.read_bytes()) == ({}, (base / "JPEGImages/2007_000009.jpg").read_bytes())
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 1


def test_archive_of_something_else(tmp_path):
    voc_tree(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(InputError, match=r"VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt is missing"):
        datasets.prepare("voc2012", archive(tmp_path), tmp_path / "cache")


def test_archive_cannot_write_elsewhere(tmp_path):
    voc_tree(tmp_path / "data")
    file = tmp_path / "evil.tar"
    with tarfile.open(file, "w") as tar:
        tar.add(tmp_path / "data/VOCdevkit/VOC2012", "VOCdevkit/VOC2012")
        link = tarfile.TarInfo("VOCdevkit/VOC2012/SegmentationClass/2007_000001.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match=r"evil.tar cannot be unpacked .*2007_000001\.png' is a link, a device"):
        datasets.prepare("voc2012", file, tmp_path / "cache")
    with tarfile.open(file, "w") as tar:
        tar.add(tmp_path / "data/VOCdevkit/VOC2012", "VOCdevkit/VOC2012")
        up = tarfile.TarInfo("VOCdevkit/VOC2012/SegmentationClass/../../../../../../up.png")
        tar.addfile(up, io.BytesIO())
    with pytest.raises(InputError, match=r"evil.tar cannot be unpacked .*outside the destination"):
        datasets.prepare("voc2012", file, tmp_path / "cache")
    assert not list(tmp_path.rglob("up.png"))


def test_trainaug(tmp_path):
    base = voc_tree(tmp_path, aug=True)
    data = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert data.splits == {"train": 2, "val": 1, "trainaug": 2}
    assert [e.name for e in data.source("trainaug")] == ["2007_000002", "2007_000001"]
    save(mask(), base / "SegmentationClassAug/2007_000002.png")
    other = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert not np.array_equal(other.source("trainaug")[0].label, data.source("trainaug")[0].label)
    shutil.rmtree(base / "SegmentationClassAug")
    assert datasets.prepare("voc2012", tmp_path, tmp_path / "cache").splits == {"train": 2, "val": 1}


def test_part_and_whole_of_voc_do_not_collide(tmp_path):
    base = voc_tree(tmp_path)
    whole = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    (base / "ImageSets/Segmentation/train.txt").write_text("2007_000001\n")
    part = datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert (len(whole.source("train")), len(part.source("train"))) == (2, 1)


def test_names_a_file_that_is_missing(tmp_path):
    base = voc_tree(tmp_path)
    (base / "JPEGImages/2007_000002.jpg").unlink()
    with pytest.raises(InputError, match=r"train: mask 2007_000002.png has no image 2007_000002.jpg in .*/JPEGImages"):
        datasets.prepare("voc2012", tmp_path, tmp_path / "cache")


def test_a_file_of_own_classes_is_not_used(tmp_path, capsys):
    base = voc_tree(tmp_path)
    datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert "warning" not in capsys.readouterr().err
    (base / "class_names.txt").write_text("ground\ncar\n")
    datasets.prepare("voc2012", tmp_path, tmp_path / "cache")
    assert f"warning: {base / 'class_names.txt'} is not used: voc2012 has the classes" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [False, True])
def test_a_voc_list_that_is_no_text(tmp_path, packed):
    base = voc_tree(tmp_path)
    (base / "ImageSets/Segmentation/train.txt").write_bytes(b"2007_\xff\n")
    source = archive(tmp_path, "VOC.tar") if packed else tmp_path
    with pytest.raises(InputError, match=r"train.txt cannot be read \('utf-8' "):
        datasets.prepare("voc2012", source, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A server that has the archive, a small one."""
    voc_tree(tmp_path / "www")
    file = archive(tmp_path / "www")
    monkeypatch.setenv("no_proxy", "*")
    with serve(tmp_path / "www") as address:
        monkeypatch.setattr(voc, "ARCHIVE", take_place(voc.ARCHIVE, f"{address}/{file.name}", file))
        yield tmp_path / "www"


def test_is_fetched(official, tmp_path, monkeypatch):
    assert_is_voc(datasets.prepare("voc2012", cache=tmp_path / "cache"), official / "VOCdevkit/VOC2012")
    monkeypatch.setattr(voc, "ARCHIVE", voc.ARCHIVE._replace(url="http://127.0.0.1:9/gone"))
    (tmp_path / "cache/downloads" / voc.ARCHIVE.file).unlink()
    assert_is_voc(datasets.prepare("voc2012", cache=tmp_path / "cache"), official / "VOCdevkit/VOC2012")


def test_cannot_be_fetched(official, tmp_path, monkeypatch):
    monkeypatch.setattr(voc, "ARCHIVE", voc.ARCHIVE._replace(url=voc.ARCHIVE.url.replace("VOCtrainval", "no")))
    with pytest.raises(InputError, match=r"404 File not found(.|\n)*--data.dir, which is the folder"):
        datasets.prepare("voc2012", cache=tmp_path / "cache")


# Real data


@pytest.fixture(scope="module")
def real_voc(voc_dir, tmp_path_factory):
    """The first images of each list of the real VOC."""
    source, base = voc_dir / "VOC2012", tmp_path_factory.mktemp("voc") / "VOC2012"
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (base / folder).symlink_to(source / folder)
    for split in ("train", "val", "trainaug"):
        names = (source / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:25]
        (base / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    return base, datasets.prepare("voc2012", base, tmp_path_factory.mktemp("cache"))


def test_real_voc(real_voc):
    base, data = real_voc
    assert data.splits == {"train": 25, "val": 25, "trainaug": 25}
    counts, sizes = np.zeros(256, int), []
    for split in data.splits:
        names = (base / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        folder = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
        for name, example in zip(names, data.source(split), strict=True):
            assert example.name == name
            label = np.asarray(Image.open(base / folder / f"{name}.png"))
            np.testing.assert_array_equal(example.label, label)
            np.testing.assert_array_equal(example.image, np.asarray(Image.open(base / f"JPEGImages/{name}.jpg")))
            sizes.append(label.shape)
            if split == "val":
                for value in range(256):
                    counts[value] += np.count_nonzero(label == value)
    assert data.max_size == tuple(np.max(sizes, axis=0))
    np.testing.assert_array_equal(data.pixels["val"], [counts])
    assert counts[255] > 0


def test_palette_is_that_of_the_real_masks(real_voc):
    base, _ = real_voc
    file = next((base / "SegmentationClass").iterdir())
    np.testing.assert_array_equal(np.reshape(Image.open(file).getpalette(), (-1, 3)), palette(256))


def test_real_lists_are_read_completely(voc_dir, tmp_path):
    found = voc.find(Request(voc_dir, tmp_path))
    counts = {split: len(examples) for split, examples in found.splits.items()}
    assert counts == {"train": 437, "val": 217, "trainaug": 1937}


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE])
def test_an_archive_has_files_only(tmp_path, kind):
    voc_tree(tmp_path / "data")
    file = tmp_path / "evil.tar"
    with tarfile.open(file, "w") as tar:
        tar.add(tmp_path / "data/VOCdevkit/VOC2012", "VOCdevkit/VOC2012")
        member = tarfile.TarInfo("VOCdevkit/VOC2012/SegmentationClass/x.png")
        member.type, member.linkname = kind, "VOCdevkit/VOC2012/SegmentationClass/y.png"
        tar.addfile(member)
    with pytest.raises(InputError, match=r"evil.tar cannot be unpacked .*(is a link, a device|bad checksum|invalid)"):
        datasets.prepare("voc2012", file, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.png"))


def test_a_compressed_or_endless_archive_is_refused(tmp_path):
    voc_tree(tmp_path / "data")
    with tarfile.open(tmp_path / "small.tar", "w:gz") as tar:
        tar.add(tmp_path / "data/VOCdevkit/VOC2012", "VOCdevkit/VOC2012")
    endless = tarfile.TarInfo("VOCdevkit/VOC2012/x")
    endless.size = -1024
    (tmp_path / "endless.tar").write_bytes(bytes(endless.tobuf(tarfile.GNU_FORMAT)) * 4)
    for name in ("small.tar", "endless.tar"):
        with pytest.raises(InputError, match=f"{name} cannot be unpacked"):
            datasets.prepare("voc2012", tmp_path / name, tmp_path / "cache")
