"""`fcn-jax predict`."""

import contextvars
import dataclasses
import re
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from measured import run_measured
from PIL import Image
from random_network import SMALL, write_run

from fcn_jax.cli import main
from fcn_jax.cli import predict as predict_command
from fcn_jax.cli.predict import Predict, _choose_outputs, _find_split, _show
from fcn_jax.config import Config, DataConfig, DataOptions, RunOptions
from fcn_jax.data.labels import palette
from fcn_jax.data.large_images import read_size
from fcn_jax.data.sources import cityscapes
from fcn_jax.data.sources.source import Request
from fcn_jax.data.tasks import Task
from fcn_jax.errors import InputError
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.runtime.files import try_lock_folder
from fcn_jax.runtime.progress import hide_progress


def test_predict_writes_masks_and_overlays_at_each_images_size(place, undisturbed):
    folder, _ = undisturbed
    images = sorted((place.root / "data" / "images" / "tiny").iterdir())
    output = place.run("predict", folder.name, images[0], place.root / "data/images/tiny", "--out", "out")
    out = place.root / "out"
    names = sorted(name for image in images for name in (f"{image.stem}.png", f"{image.stem}_overlay.png"))
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "predict.json"])
    assert "3 images in " in output
    for image in images:
        assert f"out/{image.stem}.png" in output
        with Image.open(out / f"{image.stem}.png") as mask, Image.open(image) as photograph:
            assert mask.mode == "P"
            assert mask.size == photograph.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
            assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
            with Image.open(out / f"{image.stem}_overlay.png") as overlay:
                assert overlay.size == photograph.size
                differs = (np.asarray(overlay) != np.asarray(photograph)).any(axis=-1)
            assert not differs.all()
            assert differs[np.asarray(mask) == 1].all()


@pytest.mark.slow
def test_predict_averages_views_and_writes_their_probabilities(place, undisturbed):
    image = place.root / "data" / "images" / "tiny" / "tiny0.png"
    flags = ("--flip", "--scales", "1", "1.5", "--probabilities", "--legend", "--source-values")
    place.run("predict", undisturbed[0].name, image, "--out", "views", *flags)
    out = place.root / "views"
    with Image.open(image) as photograph, Image.open(out / "tiny0.png") as mask:
        width, height = photograph.size
        assert mask.mode == "L"
        class_map = np.asarray(mask)
    # The same command keeps what is there; --quiet says nothing.
    before = (out / "tiny0.npz").stat()
    assert place.run("predict", undisturbed[0].name, image, "--out", "views", *flags, "--counts", "--quiet") == ""
    assert (out / "tiny0.npz").stat() == before
    counts = np.bincount(class_map.ravel(), minlength=2).tolist()
    assert (out / "counts.csv").read_text() == f"image,ground,thing\ntiny0.png,{counts[0]},{counts[1]}\n"
    with np.load(out / "tiny0.npz") as file:
        probabilities = file["probabilities"]
    assert probabilities.shape == (height, width, 2)
    np.testing.assert_allclose(probabilities.sum(axis=-1, dtype=np.float32), 1, atol=2e-3)
    clear = abs(probabilities[..., 1] - probabilities[..., 0]) > 0.01
    np.testing.assert_array_equal(class_map[clear], probabilities.argmax(-1)[clear])
    assert len(np.unique(probabilities)) > 10
    with Image.open(out / "tiny0_overlay.png") as overlay:
        assert overlay.height > height


def test_results_have_a_line_each_a_bar_on_a_terminal_or_nothing(capsys, monkeypatch):
    files = [Path("out/a.png"), Path("out/b.png")]
    _show(iter(files), 3, 5, quiet=False)
    assert capsys.readouterr() == ("out/a.png\nout/b.png\n", "segmenting: 3 of 5 images\nsegmenting: 5 of 5 images\n")

    def show_quietly() -> None:
        hide_progress(True)
        _show(iter(files), 0, 2, quiet=True)

    contextvars.copy_context().run(show_quietly)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _show(iter(files), 3, 5, quiet=False)
    output, bar = capsys.readouterr()
    assert output == ""
    assert "segmenting: 100%" in bar
    assert "5/5 [" in bar
    assert "images/s" in bar


@pytest.mark.slow
def test_a_photograph_of_24_megapixels_needs_little_more_than_a_tile(place, undisturbed):
    """The peak was 1.7 GB, with Python, the photograph and the results. Whole, its maps alone would need 3 GB."""
    rows, columns = np.mgrid[:4000, :6000]
    image = np.stack([rows // 16, columns // 24, (rows // 64 + columns // 64) % 2 * 200], axis=-1).astype(np.uint8)
    Image.fromarray(image).save(place.root / "large.png", compress_level=1)
    words = (sys.executable, "-m", "fcn_jax", "predict", undisturbed[0].name, "large.png", "--out", "tiled")
    measured = run_measured(words, cwd=place.root, env=place.environment)
    with Image.open(place.root / "tiled" / "large.png") as mask:
        assert mask.size == (6000, 4000)
    assert 5e8 < measured.peak < 2.5e9


LISTS, MASKS = "ImageSets/Segmentation", "SegmentationClass"


@pytest.fixture(scope="module")
def voc_run(tmp_path_factory):
    """A run on a small VOC 2012, with three images in its list of test."""
    folder = tmp_path_factory.mktemp("voc")
    generator, root = np.random.default_rng(0), folder / "VOC2012"
    for place in (LISTS, "JPEGImages", MASKS):
        (root / place).mkdir(parents=True)
    for split, names in (("train", "a"), ("val", "b"), ("test", "dec")):
        (root / LISTS / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            shape = tuple(generator.integers(33, 60, 2))
            image = Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8))
            image.save(root / f"JPEGImages/{name}.jpg")
            if split != "test":
                Image.fromarray(generator.integers(0, 21, shape, np.uint8)).save(root / f"{MASKS}/{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcn_jax.models.build.BACKBONES", SMALL)
        patch.setattr("fcn_jax.cli.predict.start_jax", lambda cache: None)
        write_run(folder / "run", DataConfig("voc2012"), DataOptions(root, folder / "cache"))
        yield folder


def assert_submission(archive: Path, run: Path, images: Path, names: list[str], folder: str) -> None:
    """Compare the masks in an archive with the class maps that `Segmenter` computes."""
    arrays = []
    for name in names:
        with Image.open(images / f"{name}.jpg") as image:
            arrays.append(np.asarray(image.convert("RGB")))
    expected = Segmenter.from_run(run)(arrays)
    with tarfile.open(archive, "r:gz") as tar:
        assert tar.getnames() == [f"results/VOC2012/Segmentation/{folder}/{name}.png" for name in names]
        for member, class_map in zip(tar, expected, strict=True):
            with Image.open(tar.extractfile(member)) as mask:
                assert mask.mode == "P"
                assert mask.getpalette()[:63] == palette(21).ravel().tolist()
                np.testing.assert_array_equal(np.asarray(mask), class_map)
    assert len(np.unique(np.concatenate([class_map.ravel() for class_map in expected]))) > 3


def test_a_split_without_labels_is_segmented_and_packed(voc_run, tmp_path, capsys):
    words = ["predict", str(voc_run / "run"), "--split", "test", "--out", str(tmp_path / "out")]
    main([*words, "--submission", str(tmp_path / "voc.tgz"), "--competition", "comp5"])
    assert capsys.readouterr().err.endswith(f"\n{tmp_path}/voc.tgz: 3 masks, each checked\n")
    images = voc_run / "VOC2012/JPEGImages"
    assert_submission(tmp_path / "voc.tgz", voc_run / "run", images, ["d", "e", "c"], "comp5_test_cls")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert len(before) == 2 * 3 + 1
    # The masks that are there are packed again.
    main([*words, "--submission", str(tmp_path / "again.tgz"), "--quiet"])
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before
    assert capsys.readouterr().out == ""
    with tarfile.open(tmp_path / "again.tgz") as tar:
        assert tar.getnames()[0] == "results/VOC2012/Segmentation/comp6_test_cls/d.png"


def test_results_stay_while_those_of_other_images_are_made(voc_run, tmp_path, capsys):
    images = voc_run / "VOC2012/JPEGImages"
    words = ["predict", str(voc_run / "run"), "--out", str(tmp_path / "out")]
    for name, end in (("a", ""), ("b", ""), ("a", "; 1 others were done already, --overwrite makes them anew")):
        main([*words, str(images / f"{name}.jpg")])
        assert re.search(rf"\d image.? in .* s{end}$", capsys.readouterr().err.strip())


def test_two_predictions_do_not_write_to_one_folder(voc_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    words = ["predict", str(voc_run / "run"), str(voc_run / "VOC2012/JPEGImages/a.jpg"), "--out", str(out)]
    with try_lock_folder(out, ""), pytest.raises(InputError, match=f"another prediction writes to {out}; wait for it"):
        predict_command.run(words[1:])
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jpg", "clip.mp4"])
def test_a_file_is_no_folder_for_results(voc_run, tmp_path, name):
    shutil.copy(voc_run / "VOC2012/JPEGImages/a.jpg", tmp_path / name)
    words = [str(voc_run / "run"), str(tmp_path / name), "--out", str(tmp_path / name)]
    with pytest.raises(InputError, match=f"{name} cannot be made a folder for the results"):
        predict_command.run(words)


def test_images_of_a_split_with_one_stem_are_named_with_what_helps(voc_run, tmp_path, monkeypatch):
    images = [Path("images/val/a/0001.png"), Path("images/val/b/0001.png")]
    monkeypatch.setattr("fcn_jax.data.split_images.list_images", lambda *arguments: images)
    words = [str(voc_run / "run"), "--split", "test", "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"0001\.png; give the folders of the images in place of --split, each with"):
        predict_command.run(words)


@pytest.mark.slow
def test_real_images_of_voc_as_a_test_list(voc_run, voc_dir, tmp_path):
    source, root = voc_dir / "VOC2012", tmp_path / "VOC2012"
    listed = (source / LISTS / "val.txt").read_text().split()[:20]
    # Of one size, so that each forward pass compiles one program.
    names = [name for name in listed if read_size(source / f"JPEGImages/{name}.jpg") == (500, 375)][:3]
    (root / LISTS).mkdir(parents=True)
    (root / LISTS / "test.txt").write_text("\n".join(names))
    (root / "JPEGImages").symlink_to(source / "JPEGImages")
    words = ["predict", str(voc_run / "run"), "--split", "test", "--data.dir", str(tmp_path)]
    main([*words, "--out", str(tmp_path / "out"), "--submission", str(tmp_path / "voc.tar.gz")])
    images = source / "JPEGImages"
    assert_submission(tmp_path / "voc.tar.gz", voc_run / "run", images, names, "comp6_test_cls")


def test_no_submission_without_every_image(voc_run, tmp_path):
    root = tmp_path / "VOC2012"
    (root / LISTS).mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    (root / LISTS / "test.txt").write_text("d\nbad\n")
    (root / "JPEGImages/d.jpg").symlink_to(voc_run / "VOC2012/JPEGImages/d.jpg")
    (root / "JPEGImages/bad.jpg").write_bytes(b"no image")
    words = ["predict", str(voc_run / "run"), "--split", "test", "--data.dir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main([*words, "--out", str(tmp_path / "out"), "--submission", str(tmp_path / "voc.tgz")])
    assert end.value.code == 2
    assert (tmp_path / "out/d.png").is_file()
    assert not (tmp_path / "voc.tgz").exists()


def make_run(name: str, where: Path, class_names: tuple[str, ...]) -> SimpleNamespace:
    config, options = Config(data=DataConfig(name)), RunOptions(data=DataOptions(where, where / "cache"))
    task = Task("", class_names, palette(len(class_names)))  # as a run of an older version has it
    return SimpleNamespace(
        folder=where / "run",
        config=config,
        options=options,
        tasks=(task,),
        class_names=class_names,
        palette=task.palette,
    )


# labels.py of cityscapesScripts: the ids of the train ids 0 to 18.
IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_source_values_of_a_data_set_with_a_map_of_its_own(tmp_path):
    flags = Predict(Path("run"), ("a.png",), source_values=True)
    run = make_run("cityscapes", tmp_path / "gone", tuple(cityscapes.CLASSES))
    with pytest.raises(InputError, match=r"run is of an older version.*gone does not exist.*leave out --source-values"):
        _choose_outputs(flags, run, None)
    (tmp_path / "gone/leftImg8bit/test/berlin").mkdir(parents=True)
    (tmp_path / "gone/leftImg8bit/test/berlin/a_leftImg8bit.png").touch()
    label_map = cityscapes.find(Request(tmp_path / "gone", tmp_path)).label_map
    assert _choose_outputs(flags, run, None).values.tolist() == IDS  # from its data
    shutil.rmtree(tmp_path / "gone")
    run.tasks = (run.tasks[0]._replace(label_map=label_map),)
    assert _choose_outputs(flags, run, None).values.tolist() == IDS  # from the run alone
    assert _choose_outputs(dataclasses.replace(flags, source_values=False), run, None).values is None


def test_masks_for_cityscapes_have_its_numbers(tmp_path):
    image = tmp_path / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    image.parent.mkdir(parents=True)
    image.touch()
    run = make_run("cityscapes", tmp_path, tuple(cityscapes.CLASSES))
    flags = Predict(Path("run"), (), split="test", submission=tmp_path / "c.zip")
    split = _find_split(flags, run, "test")
    assert split.images == [image]
    assert _choose_outputs(flags, run, split).values.tolist() == IDS
    plain = dataclasses.replace(flags, submission=None)
    assert _choose_outputs(plain, run, _find_split(plain, run, "test")).values is None


def test_a_submission_wants_the_classes_of_the_server(voc_run):
    flags = Predict(Path("run"), (), split="test", submission=Path("v.tgz"))
    with pytest.raises(InputError, match="run was trained on the classes a, b, and the server of voc2012 wants backgr"):
        _find_split(flags, make_run("voc2012", voc_run / "VOC2012", ("a", "b")), "test")
