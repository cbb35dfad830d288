"""`fcn-jax data list`, `prepare` and `check`."""

import numpy as np
from PIL import Image

from fcn_jax.cli import main
from fcn_jax.data.sources import SOURCES


def test_data_list_names_every_data_set(capsys):
    main(["data", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *SOURCES]


def test_data_check_counts_and_draws(place):
    output = place.run("data", "check", "folder", "--dir", place.root / "data", "--out", "check.png")
    for split in ("train", "tiny"):
        files = sorted((place.root / f"data/labels/{split}").iterdir())
        text = output.split(f"\nfolder {split}: {len(files)} images, pixels by label\n")[1].split("\n\n")[0]
        masks = np.concatenate([np.asarray(Image.open(path)).ravel() for path in files])
        rows = [line.split() for line in text.splitlines()]
        assert rows == [
            [str(value), name, f"{(masks == value).sum():,}", f"{100 * (masks == value).mean():.2f}", "%"]
            for value, name in ((0, "ground"), (1, "thing"), (255, "void"))
        ]
    with Image.open(place.root / "check.png") as picture:
        assert picture.size[0] > 60


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
    words = ("data", "check", *of_masks, "--out", "white.png")
    suspicion = "the class thing: in no image; masks of 0 and 255, black and white, need --map 255=1"
    assert suspicion in place.run(*words)
    assert f"folder train: 2 images\n  {suspicion}" in place.run("data", "prepare", *of_masks)
    output = place.run(*words, "--map", "255=1", "--hold-out", "0.5")
    assert "in no image" not in output
    for split in ("train", "held-out"):
        assert f"folder {split}: 1 images" in output
