"""Prediction: which files are found, and what is written."""

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from xla_flags import FAST_COMPILE

from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference import outputs as outputs_module
from fcn_jax.inference import predict as module
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import describe_left_out, find_images, predict
from fcn_jax.inference.read_image import read_image
from fcn_jax.inference.segment import Scored, segment
from fcn_jax.inference.visualize import overlay

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_what_a_folder_leaves_out_is_named(tmp_path):
    touch(
        tmp_path,
        "in/a.HEIC",
        "in/b.heic",
        "in/c.jpg",
        "in/notes",
        "in/.hidden",
        "in/Thumbs.db",
        "in/deep/d.heic",
        "whole/e.jfif",
    )
    folders = [str(tmp_path / "in"), str(tmp_path / "whole"), str(tmp_path / "in" / "c.jpg")]
    assert [file.name for file in find_images(folders)] == ["c.jpg", "e.jfif"]
    assert describe_left_out(folders) == [
        f"{tmp_path}/in: left out are 3 files of kinds that cannot be read: .heic (2), no suffix (1)",
        f"{tmp_path}/in: left out are 1 sub-folder, deep; give '{tmp_path}/in/**/*.png' or the like to include them",
    ]


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jfif", "JPEG"), (".jp2", "JPEG2000"), (".avif", "AVIF"), (".qoi", None)]
)
def test_every_kind_that_pillow_reads_is_found(tmp_path, suffix, kind):
    file = tmp_path / f"a{suffix}"
    if kind is None:
        touch(tmp_path, file.name)
    else:
        file.write_bytes(encoded(Image.fromarray(RGB), kind))
        assert read_image(file).shape == RGB.shape
    assert find_images([str(tmp_path)]) == [file]


def test_find_files_folders_and_globs_each_once_in_order(tmp_path):
    touch(tmp_path, "b.jpg", "a.PNG", "notes.txt", "c.jpeg", "deep/d.webp", "deep/er/e.tif", "x.png")
    folder = str(tmp_path)
    names = lambda *patterns: [file.name for file in find_images(patterns)]  # noqa: E731
    assert names(f"{folder}/x.png") == ["x.png"]
    assert names(folder) == ["a.PNG", "b.jpg", "c.jpeg", "x.png"]
    assert names(f"{folder}/*.jp*g") == ["b.jpg", "c.jpeg"]
    assert names(f"{folder}/**/*.*if") == ["e.tif"]
    assert names(f"{folder}/x.png", f"{folder}/deep", folder) == ["x.png", "d.webp", "a.PNG", "b.jpg", "c.jpeg"]
    # A file that is named is taken at its word, whatever its suffix.
    assert names(f"{folder}/notes.txt") == ["notes.txt"]


def test_a_name_with_glob_characters_is_a_file_first(tmp_path):
    (file,) = touch(tmp_path, "holiday[1].jpg")
    assert find_images([str(file)]) == [file]


def test_nothing_found(tmp_path):
    touch(tmp_path, "empty/readme.md", "a.jpg")
    with pytest.raises(InputError, match=r"nowhere\.jpg matches no file"):
        find_images([str(tmp_path / "a.jpg"), str(tmp_path / "nowhere.jpg")])
    with pytest.raises(InputError, match=r"\*\.png matches no file"):
        find_images([str(tmp_path / "*.png")])
    # A glob that matches folders alone names no image.
    with pytest.raises(InputError, match="matches no file"):
        find_images([str(tmp_path / "emp*")])
    with pytest.raises(
        InputError, match=r"empty holds no image; give another(?s:.*): left out are 1 file of .*: \.md \(1\)$"
    ):
        find_images([str(tmp_path / "empty")])


def test_files_that_would_be_written_to_the_same_place(tmp_path):
    jpg, png = touch(tmp_path, "a/one.jpg", "b/one.png")
    message = re.escape(f"{jpg} and {png} would both be written as one.png")
    with pytest.raises(InputError, match=message):
        find_images([str(jpg), str(png)])
    plain, overlaid = touch(tmp_path, "c/two.jpg", "c/two_overlay.jpg")
    message = re.escape(f"{plain} and {overlaid} would both be written as two_overlay.png")
    with pytest.raises(InputError, match=message):
        find_images([str(tmp_path / "c")])


def test_whatever_a_decoder_raises_leaves_out_that_file_alone(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(RGB).save(tmp_path / "in" / "a.png")
    # A PNG without pixels, and a DDS file of no known pixel format: SyntaxError and NotImplementedError.
    (tmp_path / "in" / "b.png").write_bytes(encoded(Image.fromarray(RGB), "PNG")[:33])
    header = b"DDS " + (124).to_bytes(4, "little") + bytes(68) + (32).to_bytes(4, "little") + bytes(48)
    (tmp_path / "in" / "c.jpg").write_bytes(header)
    results = predict(segmenting(by_red), find_images([str(tmp_path / "in")]), tmp_path / "out", Outputs(palette(5)))
    assert next(results).stem == "a"
    with pytest.raises(InputError, match=r"2 of 3 images are left out:(\n.*[bc]\.(png|jpg) cannot be read.*){2}"):
        next(results)


def segmenting(forward, batch_size=8):
    return lambda examples: segment(forward, {}, examples, batch_size)


def by_red(variables, batch):
    """Stands in for a network: the class of a pixel is its red divided by 52, nothing is scored."""
    assert (np.asarray(batch.label) == 255).all()
    return Scored(jnp.asarray(batch.image)[..., 0] // 52, jnp.zeros(()), jnp.zeros(()))


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
    assert all_whole(out) < 2 * len(photographs) - 1


def test_any_error_of_a_writer_comes_out(tmp_path, photographs, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such colour")

    monkeypatch.setattr(outputs_module, "overlay", broken)
    with pytest.raises(RuntimeError, match="no such colour"):
        list(predict(segmenting(by_red), find_images([str(tmp_path / "in")]), tmp_path / "out", Outputs(palette(5))))


def all_whole(folder: Path) -> int:
    """The number of files in a folder, all of them whole PNGs."""
    files = list(folder.iterdir())
    for file in files:
        assert file.suffix == ".png"
        assert not file.name.startswith(".")
        with Image.open(file) as picture:
            picture.load()
    return len(files)


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
    assert all_whole(out) == 10
    for file in chosen[:2] + chosen[3:]:
        with Image.open(file) as picture:
            image = np.asarray(picture.convert("RGB"))
        expected = image[..., 0] // 52
        with Image.open(out / f"{file.stem}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected)
        with Image.open(out / f"{file.stem}_overlay.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), overlay(image, expected, colours))


# A shell's background jobs, and what they start, have SIGINT ignored.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
import numpy as np
from fcn_jax.data.labels import palette
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.segment import Scored, segment

def forward(variables, batch):
    return Scored(np.asarray(batch.image)[..., 0] // 52, np.zeros(()), np.zeros(()))

segmenting = lambda examples: segment(forward, {}, examples, 1)
for file in predict(segmenting, find_images(sys.argv[1:]), Path("out"), Outputs(palette(5))):
    print(file)
"""


def test_ctrl_c_leaves_whole_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for index in range(300):
        (tmp_path / "in" / f"p{index}.bmp").write_bytes(encoded(Image.fromarray(image), "BMP"))
    command = [sys.executable, "-u", "-c", INTERRUPTED, str(tmp_path / "in")]
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "XLA_FLAGS": FAST_COMPILE}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("out/"), process.stderr.read()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGINT, (lines, errors)
    assert errors.endswith("KeyboardInterrupt\n")
    count = all_whole(tmp_path / "out")
    assert 10 <= count < 600
    assert count % 2 == 0  # class map and overlay


RESUMED = """
import sys
from pathlib import Path
import numpy as np
from fcn_jax.data.labels import palette
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import find_images, predict
from fcn_jax.inference.resume import find_done
from fcn_jax.inference.segment import Scored, segment

def forward(variables, batch):
    return Scored(np.asarray(batch.image)[..., 0] // 52, np.zeros(()), np.zeros(()))

files, out, outputs, origin = find_images(sys.argv[1:]), Path("out"), Outputs(palette(5)), {"step": 1}
done = find_done(files, out, outputs, origin)
print(len(done), flush=True)
for file in predict(lambda examples: segment(forward, {}, examples, 1), files, out, outputs, 2, origin, done):
    print(file)
print("end")
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_gives_the_results_of_an_undisturbed_run(tmp_path):
    generator = np.random.default_rng()
    (tmp_path / "in").mkdir()
    for index in range(60):
        image = generator.integers(0, 256, (300, 400, 3), np.uint8)
        (tmp_path / "in" / f"p{index}.bmp").write_bytes(encoded(Image.fromarray(image), "BMP"))
    command = [sys.executable, "-u", "-c", RESUMED, str(tmp_path / "in")]
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "XLA_FLAGS": FAST_COMPILE}
    kept = []
    for awaited in (*generator.integers(1, 20, 2), 1000):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        kept.append(int(process.stdout.readline()))
        lines = [line for line, _ in zip(process.stdout, range(awaited), strict=False)]
        time.sleep(generator.uniform(0, 0.02) if awaited < 1000 else 0)
        process.kill()
        process.communicate(timeout=60)
    assert lines[-1] == "end\n"
    assert 0 == kept[0] < kept[1] < kept[2] < 60, kept
    assert len(lines) == 61 - kept[2]
    files = find_images([str(tmp_path / "in")])
    list(predict(segmenting(by_red), files, tmp_path / "whole", Outputs(palette(5)), origin={"step": 1}))
    found, expected = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("out", "whole")
    )
    assert found == expected
    assert len(found) == 121


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


def test_hidden_files_are_passed_over(tmp_path):
    touch(tmp_path, "._a.jpg", "a.jpg")
    assert find_images([str(tmp_path)]) == [tmp_path / "a.jpg"]


def test_no_images_named():
    with pytest.raises(InputError, match="no images are named"):
        find_images([])
