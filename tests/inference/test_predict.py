"""Prediction: what is written of which images."""

import itertools
import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from red_classes import by_red, count_whole, encode, segmenting

from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference import outputs as outputs_module
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.read_image import read_image
from fcn_jax.inference.visualize import overlay

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)


def test_whatever_a_decoder_raises_leaves_out_that_file_alone(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(RGB).save(tmp_path / "in" / "a.png")
    # A PNG without pixels, and a DDS file of no known pixel format: SyntaxError and NotImplementedError.
    (tmp_path / "in" / "b.png").write_bytes(encode(Image.fromarray(RGB), "PNG")[:33])
    header = b"DDS " + (124).to_bytes(4, "little") + bytes(68) + (32).to_bytes(4, "little") + bytes(48)
    (tmp_path / "in" / "c.jpg").write_bytes(header)
    results = predict(segmenting(by_red), find_images([str(tmp_path / "in")]), tmp_path / "out", Outputs(palette(5)))
    assert next(results).stem == "a"
    with pytest.raises(InputError, match=r"2 of 3 images are left out:(\n.*[bc]\.(png|jpg) cannot be read.*){2}"):
        next(results)


@pytest.fixture
def photographs(tmp_path) -> dict[str, np.ndarray]:
    """More images than a batch holds, of three sizes on two canvases."""
    generator = np.random.default_rng(2)
    shapes = {f"p{i}": [(7, 11), (20, 40), (33, 5)][i % 3] for i in range(11)}
    images = {name: generator.integers(0, 256, (*shape, 3), np.uint8) for name, shape in shapes.items()}
    (tmp_path / "in").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    return images


def test_predict_writes_indices_and_overlay_of_each_image_at_its_own_size(tmp_path, photographs):
    files = find_images([str(tmp_path / "in")])
    out = tmp_path / "made" / "on demand"
    colours = palette(5)
    seen = []
    for file in predict(segmenting(by_red, jax.local_device_count()), files, out, Outputs(colours)):
        assert file.is_file()
        seen.append(file.name)
    assert sorted(seen) == sorted(f"{name}.png" for name in photographs)
    assert sorted(file.name for file in out.iterdir()) == sorted(
        name for stem in photographs for name in (f"{stem}.png", f"{stem}_overlay.png")
    )
    for name, image in photographs.items():
        expected = image[..., 0] // 52
        with Image.open(out / f"{name}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), expected)
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colours[expected])
        with Image.open(out / f"{name}_overlay.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), overlay(image, expected, colours))


def test_predict_begins_with_the_largest_images_so_that_others_use_their_programs(tmp_path):
    (tmp_path / "in").mkdir()
    for name, width in (("a", 60), ("b", 90)):  # two batches, on two canvases
        for index in range(8):
            Image.new("RGB", (width, 60)).save(tmp_path / "in" / f"{name}{index}.png")
    (tmp_path / "in" / "torn.png").write_bytes((tmp_path / "in" / "b0.png").read_bytes()[:20])
    canvases = []

    def record_canvas(variables, batch):
        canvases.append(batch.label.shape[1:])
        return by_red(variables, batch)

    files = find_images([str(tmp_path / "in")])
    results = predict(segmenting(record_canvas), files, tmp_path / "out", Outputs(palette(5)))
    written = [file.stem for file in itertools.islice(results, 16)]
    assert written == [f"{name}{index}" for name in "ba" for index in range(8)]
    with pytest.raises(InputError, match=r"1 of 17 images are left out:\n.*torn\.png"):
        next(results)
    assert canvases == [(64, 96)] * 2


def test_predict_does_not_overwrite_its_images(tmp_path, photographs):
    folder = tmp_path / "in"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    files = find_images([str(folder)])
    link = tmp_path / "link"
    link.symlink_to(folder)
    through_link = find_images([str(link)])
    for images, out in ((files, folder), (files, link), (files, folder / ".." / "in"), (through_link, folder)):
        with pytest.raises(InputError, match=r"p0\.png would be overwritten"):
            list(predict(segmenting(by_red), images, out, Outputs(palette(5))))
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_predict_leaves_out_what_it_cannot_read_and_says_so(tmp_path, photographs):
    bad = [tmp_path / "in" / name for name in ("p3.png", "p7.png")]
    for file in bad:
        file.write_bytes(file.read_bytes()[:60])
    out = tmp_path / "out"
    results = predict(segmenting(by_red), find_images([str(tmp_path / "in")]), out, Outputs(palette(5)))
    written = [file.stem for file in itertools.islice(results, len(photographs) - 2)]
    with pytest.raises(InputError) as caught:
        next(results)
    text = str(caught.value)
    assert text.startswith("2 of 11 images are left out:\n")
    assert all(f"\n  {file} cannot be read as an image" in text for file in bad)
    assert sorted(written) == sorted(photographs.keys() - {"p3", "p7"})
    assert sorted(file.name for file in out.iterdir()) == sorted(
        name for stem in written for name in (f"{stem}.png", f"{stem}_overlay.png")
    )


def test_out_must_be_a_folder_that_can_be_written_to(tmp_path, photographs):
    (tmp_path / "file").touch()
    closed = tmp_path / "closed"
    closed.mkdir(0o500)
    folders = [tmp_path / "file", closed]
    if os.access(closed, os.W_OK):  # root may write everywhere, but not here
        folders[1] = Path("/proc")
    for folder in folders:
        with pytest.raises(InputError, match=f"{folder} cannot be made a folder"):
            list(predict(segmenting(by_red), find_images([str(tmp_path / "in")]), folder, Outputs(palette(5))))


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path, photographs, monkeypatch):
    save, out = Image.Image.save, tmp_path / "out"

    def full(picture, file, **options):
        save(picture, file, **options)
        if file.name.startswith(("p4.png", "p9_")):
            file.write_bytes(file.read_bytes()[:40])
            raise OSError(28, "No space left on device")

    files = find_images([str(tmp_path / "in")])
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"p\d\.png cannot be written \(.*No space left"):
        list(predict(segmenting(by_red), files, out, Outputs(palette(5))))
    assert count_whole(out) < 2 * len(photographs) - 1


def test_any_error_of_a_writer_comes_out(tmp_path, photographs, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such colour")

    monkeypatch.setattr(outputs_module, "overlay", broken)
    with pytest.raises(RuntimeError, match="no such colour"):
        list(predict(segmenting(by_red), find_images([str(tmp_path / "in")]), tmp_path / "out", Outputs(palette(5))))


def test_files_are_read_ahead_and_written_behind(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(40):
        Image.fromarray(RGB).save(tmp_path / "in" / f"p{index}.png")
    read, out, batches, ahead = [], tmp_path / "out", 0, []

    def slowly(file):
        time.sleep(0.01)
        read.append(file)
        return read_image(file)

    def forward(variables, batch):
        nonlocal batches
        batches += 1
        # The device is busy until more is read than it has been given, and the first batch is being written.
        began = time.monotonic()
        while time.monotonic() < began + 10:
            if (len(read) > 8 * batches or batches > 3) and (batches < 3 or list(out.glob("*.png"))):
                ahead.append(batches)
                break
            time.sleep(0.001)
        return by_red(variables, batch)

    files = find_images([str(tmp_path / "in")])
    assert len(list(predict(segmenting(forward), files, out, Outputs(palette(5)), read=slowly))) == 40
    assert ahead == [1, 2, 3, 4, 5]


def test_real_photographs_one_of_them_cut_short(tmp_path, voc_dir):
    chosen = sorted((voc_dir / "VOC2012/JPEGImages").glob("*.jpg"))[:6]
    (tmp_path / "in").mkdir()
    for file in chosen:
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
    cut = tmp_path / "in" / chosen[2].name
    cut.write_bytes(cut.read_bytes()[:9000])
    out, colours = tmp_path / "out", palette(5)
    results = predict(segmenting(by_red), find_images([str(tmp_path / "in")]), out, Outputs(colours))
    with pytest.raises(InputError, match=rf"1 of 6 images are left out:\n  {cut} cannot be read as an image"):
        list(results)
    assert count_whole(out) == 10
    for file in chosen[:2] + chosen[3:]:
        with Image.open(file) as picture:
            image = np.asarray(picture.convert("RGB"))
        expected = image[..., 0] // 52
        with Image.open(out / f"{file.stem}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected)
        with Image.open(out / f"{file.stem}_overlay.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), overlay(image, expected, colours))


def test_summaries_have_the_images_that_were_done_before_and_not_the_unreadable(tmp_path, photographs):
    bad = tmp_path / "in" / "p3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    files, out = find_images([str(tmp_path / "in")]), tmp_path / "out"
    outputs = Outputs(palette(5), tuple("abcde"), counts=True)
    list(predict(segmenting(by_red), files[:2], out, outputs))
    results = predict(segmenting(by_red), files, out, outputs, done=files[:2])
    with pytest.raises(InputError, match="1 of 11 images are left out"):
        assert len(list(itertools.islice(results, 11))) == 8
    rows = [row.split(",") for row in (out / "counts.csv").read_text().splitlines()[1:]]
    assert [name for name, *_ in rows] == [file.name for file in files if file != bad]
    for name, *counts in rows:
        expected = np.bincount((photographs[name[:-4]][..., 0] // 52).ravel(), minlength=5)
        assert list(map(int, counts)) == expected.tolist()
