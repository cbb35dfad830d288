"""The files of a segmented image."""

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.labels import palette
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs, read_class_map, save_probabilities, write_results
from fcn_jax.inference.segment import Segmented, make_unlabelled
from fcn_jax.inference.visualize import overlay

COLOURS = palette(3)
GENERATOR = np.random.default_rng(0)
IMAGE = GENERATOR.integers(0, 256, (20, 30, 3), np.uint8)
CLASS_MAP = GENERATOR.integers(0, 3, (20, 30), np.uint8)


def write(out, outputs: Outputs, probabilities=None) -> list[str]:
    """Writes the results of the image, and returns the names of all files."""
    file = write_results(Segmented(make_unlabelled("a", IMAGE), CLASS_MAP, 0.0, 0.0, probabilities), out, outputs)
    assert file == out / "a.png"
    np.testing.assert_array_equal(read_class_map(file, outputs), CLASS_MAP)
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(outputs.name_files("a"))
    return names


def read(file) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def test_mask_and_overlay_are_always_written(tmp_path):
    assert write(tmp_path, Outputs(COLOURS)) == ["a.png", "a_overlay.png"]
    np.testing.assert_array_equal(read(tmp_path / "a_overlay.png"), overlay(IMAGE, CLASS_MAP, COLOURS))


def test_masks_with_other_values_are_grey(tmp_path):
    values = np.array([7, 255, 0], np.uint8)
    write(tmp_path, Outputs(COLOURS, values=values))
    with Image.open(tmp_path / "a.png") as mask:
        assert mask.mode == "L"
        for index, value in enumerate(values):
            np.testing.assert_array_equal(np.asarray(mask) == value, index == CLASS_MAP)


def test_alpha_is_the_weight_of_the_colours(tmp_path):
    write(tmp_path, Outputs(COLOURS, alpha=0.2))
    found, inner = read(tmp_path / "a_overlay.png"), CLASS_MAP > 0
    inner[:, :-1] &= CLASS_MAP[:, :-1] == CLASS_MAP[:, 1:]  # pixels before another class are white
    inner[:-1] &= CLASS_MAP[:-1] == CLASS_MAP[1:]
    assert inner.sum() > 20
    expected = 0.8 * IMAGE.astype(np.float64) + 0.2 * COLOURS[CLASS_MAP]
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.51)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_within_0_and_1(alpha):
    with pytest.raises(InputError, match=r"alpha is .*; it must be within 0 \(the image alone\) and 1"):
        Outputs(COLOURS, alpha=alpha)


def test_the_legend_is_below_the_overlay(tmp_path):
    write(tmp_path, Outputs(COLOURS, ("sky", "sea", "sand"), legend=True))
    found = read(tmp_path / "a_overlay.png")
    assert found.shape[0] > 40
    np.testing.assert_array_equal(found[:20, :30], overlay(IMAGE, CLASS_MAP, COLOURS))
    below = {tuple(colour) for colour in found[24:].reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in COLOURS.tolist()} <= below


def test_probabilities_are_written_with_their_entropy_in_nats(tmp_path):
    shares = GENERATOR.dirichlet([0.2, 0.2, 0.2], (20, 30)).astype(np.float16)
    shares[0, 0], shares[0, 1] = [0, 1, 0], 1 / 3
    write(tmp_path, Outputs(COLOURS, probabilities=True), shares)
    with np.load(tmp_path / "a.npz") as file:
        assert sorted(file) == ["entropy", "probabilities"]
        probabilities, entropy = file["probabilities"], file["entropy"]
    assert probabilities.dtype == entropy.dtype == np.float16
    np.testing.assert_array_equal(probabilities, shares)
    assert entropy[0, 0] == 0
    assert entropy[0, 1] == pytest.approx(np.log(3), abs=1e-3)
    for row, column in np.ndindex(20, 30):
        positive = [float(share) for share in shares[row, column] if share > 0]
        assert entropy[row, column] == pytest.approx(-sum(p * np.log(p) for p in positive), abs=2e-3)


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="No space left"):
        save_probabilities(np.ones((2, 2, 1), np.float16), tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []
