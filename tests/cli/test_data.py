"""`fcn-jax data list`, `prepare` and `check`."""

import json
import shutil

import numpy as np
import pytest
from command_line import draw_folder_data
from PIL import Image

from fcn_jax.cli import main
from fcn_jax.cli.train import read_flags
from fcn_jax.data.sources import SOURCES


def test_data_list_names_every_data_set(capsys):
    main(["data", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and line[0] != " "] == list(SOURCES)


def test_data_check_of_a_path_names_the_data_sets(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["data", "check", str(tmp_path / "none" / "mydata")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "mydata" in error
    assert "camvid" in error
    assert "cannot be written" not in error


def test_data_check_counts_and_draws(place):
    words = ("data", "check", "folder", "--dir", place.root / "data")
    output = place.run(*words, "--out", "check.html", "--json", "check.json")
    found = json.loads((place.root / "check.json").read_text())
    for split in ("train", "tiny"):
        files = sorted((place.root / f"data/labels/{split}").iterdir())
        text = output.split(f"\nfolder {split}: {len(files)} images\n")[1].split("\n\n")[0]
        labels = [np.asarray(Image.open(path)) for path in files]
        masks = np.concatenate([label.ravel() for label in labels])
        rows = [line.split() for line in text.splitlines()]
        expected = [
            (value, name, int((masks == value).sum()), (masks == value).mean(), sum(value in label for label in labels))
            for value, name in ((0, "ground"), (1, "thing"), (255, "void"))
        ]
        assert rows[2:5] == [
            [str(value), name, f"{count:,}", f"{100 * share:.2f}", "%", str(images)]
            for value, name, count, share, images in expected
        ]
        listed = found["splits"][split]["labels"]
        assert [(r["label"], r["name"], r["pixels"], r["share"], r["images"]) for r in listed] == expected
    (line,) = [line for line in output.splitlines() if "--optim.class-weights" in line]
    _, config, *_ = read_flags(["fcn8s", *line.split()])
    assert config.optim.class_weights == pytest.approx(found["class_weights"]["weights"], rel=5e-3)
    assert (place.root / "check.html").read_text().count("<figure>") >= 8 + 3


def test_data_check_warns_of_images_in_two_splits_and_draws_the_first_images(place):
    folder = place.root / "leaking"
    shutil.copytree(place.root / "data", folder)
    for kind in ("images", "labels"):
        shutil.copy(folder / kind / "train/train3.png", folder / kind / "tiny/again.png")
    output = place.run("data", "check", "folder", "--dir", folder, "--out", "leaking.png", "--json", "leaking.json")
    assert "\nwarning: 1 image of tiny is the same as images of train: again = train3\n" in output
    (repeats,) = [r for r in json.loads((place.root / "leaking.json").read_text())["repeats"] if r["kind"] == "equal"]
    assert repeats["pairs"] == [{"name": "again", "other": "train3", "bits": 0, "same_label": True}]
    with Image.open(place.root / "leaking.png") as picture:
        assert picture.size[0] > 60
        assert picture.size[1] > 8 * 30  # four images to train on and four to score


def test_data_prepare_says_where_to_find_what_it_needs(place):
    output = place.run("data", "prepare", "camvid", code=2)
    # Flags are named as this command has them.
    assert "--dir" in output
    assert "--data.dir" not in output


def test_data_check_suspects_black_and_white_masks(place):
    white = place.root / "white"
    for kind in ("images", "labels"):
        (white / kind / "train").mkdir(parents=True)
    pixels = np.zeros((9, 9), np.uint8)
    pixels[3:6] = 255
    for stem in ("a", "b"):
        Image.fromarray(pixels).save(white / f"labels/train/{stem}_mask.png")
        Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(white / f"images/train/{stem}.png")
    (white / "classes.txt").write_text("ground\nthing\n")
    of_masks = ("folder", "--dir", white, "--label-suffix=_mask")
    words = ("data", "check", *of_masks, "--out", "white.html")
    suspicion = "the class thing: in no image; masks of 0 and 255, black and white, need --map 255=1"
    assert suspicion in place.run(*words)
    assert f"folder train: 2 images\n  {suspicion}" in place.run("data", "prepare", *of_masks)
    output = place.run(*words, "--map", "255=thing", "7=void", "--hold-out", "0.5")
    assert "in no image" not in output
    assert "values of masks: 7 is void, 255 is thing; 255 is void unless it is listed\n" in output
    for split in ("train", "held-out"):
        assert f"folder {split}: 1 images" in output


def test_a_split_to_train_on_that_is_not_there(place):
    words = ("data", "prepare", "folder", "--dir", place.root / "data", "--train-split", "trian")
    assert "folder has no split 'trian' here; it has train, tiny: give one of them" in place.run(*words, code=2)


def test_splits_without_labels_are_listed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    draw_folder_data(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/labels/tiny")
    line = "folder tiny: 3 images without labels, only for `fcn-jax predict RUN --split tiny`\n"
    words = ["folder", "--dir", "data", "--cache", "cache"]
    main(["data", "prepare", *words])
    assert capsys.readouterr().out == f"folder train: 8 images\n{line}"
    main(["data", "check", *words])
    assert f"\n\n{line}\n" in capsys.readouterr().out


def test_damaged_files_are_named_once_and_sound_ones_are_silent(place):
    tifffile = pytest.importorskip("tifffile", reason="TIFFs with several channels are read by tifffile")
    folder = place.root / "bands"
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for stem in "ab":
        Image.new("L", (6, 4)).save(folder / f"labels/train/{stem}.png")
        bands = np.zeros((4, 6, 8), np.uint16)
        tifffile.imwrite(folder / f"images/train/{stem}.tif", bands, photometric="minisblack", planarconfig="contig")
    (folder / "classes.txt").write_text("ground\n")
    words = ("data", "prepare", "folder", "--dir", folder, "--inputs", "bands", "--quiet")
    assert place.run(*words) == "folder train: 2 images\n"  # Pillow cannot read them, which nobody has to know
    whole = (folder / "images/train/a.tif").read_bytes()
    (folder / "images/train/a.tif").write_bytes(whole[:60])
    (folder / "images/train/b.tif").write_bytes(whole[:24] + bytes(range(100)) + whole[124:])  # tags of unknown types
    _, *lines = place.run(*words, code=2).splitlines()
    assert [line.partition(".tif ")[0] for line in lines] == [f"  train: bands image {stem}" for stem in "ab"]
