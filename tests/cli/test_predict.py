"""`fcn-jax predict`."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_jax.cli.predict import _show


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
    assert capsys.readouterr() == ("4/5 out/a.png\n5/5 out/b.png\n", "")
    _show(iter(files), 0, 2, quiet=True)
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
    with place.start("predict", undisturbed[0].name, "large.png", "--out", "tiled") as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    with Image.open(place.root / "tiled" / "large.png") as mask:
        assert mask.size == (6000, 4000)
    assert 1024 * usage.ru_maxrss < 2.5e9
