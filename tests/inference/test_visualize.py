"""Pictures of labels, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from fcn_jax.data.labels import palette as voc_palette
from fcn_jax.inference.visualize import VOID_COLOUR, colourise, overlay, panel, save_palette_png, save_png, stack

PALETTE = np.array([[0, 0, 0], [200, 10, 30], [0, 255, 1]], np.uint8)


def example() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    label = np.zeros((12, 17), np.uint8)
    label[3:9, 4:10] = 1
    label[5:, 12:] = 2
    label[:2, 8:] = 255
    return generator.integers(0, 256, (12, 17, 3), np.uint8), label


def on_a_border(label: np.ndarray, i: int, j: int) -> bool:
    height, width = label.shape
    right = j + 1 < width and label[i, j] != label[i, j + 1]
    below = i + 1 < height and label[i, j] != label[i + 1, j]
    return right or below


@pytest.mark.parametrize("count", [0, 1, 21, 256])
def test_palette_is_vocs(count):
    # VOClabelcolormap.m of the development kit, a bit at a time.
    def colour(label: int) -> list[int]:
        channels = [0, 0, 0]
        for k in range(8):
            for channel in range(3):
                channels[channel] |= (label >> (3 * k + channel) & 1) << (7 - k)
        return channels

    colours = voc_palette(count)
    assert colours.shape == (count, 3)
    assert colours.dtype == np.uint8
    assert colours.tolist() == [colour(label) for label in range(count)]


def test_palette_beginning():
    # As the masks of the data set have them: background, aeroplane, bicycle, ..., tv monitor.
    colours = voc_palette(21).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[15] == [192, 128, 128]
    assert colours[20] == [0, 64, 128]
    assert tuple(voc_palette(256)[255]) == VOID_COLOUR


@pytest.mark.parametrize("count", [-1, 257])
def test_palette_of_too_many_colours(count):
    with pytest.raises(ValueError, match=rf"num_classes is {count}, and a palette has 0 to 256 colours"):
        voc_palette(count)


def test_colourise():
    _, label = example()
    colours = colourise(label, PALETTE)
    for i, j in np.ndindex(label.shape):
        expected = (224, 224, 192) if label[i, j] == 255 else PALETTE[label[i, j]]
        assert tuple(colours[i, j]) == tuple(expected)


@pytest.mark.parametrize("opacity", [0.0, 0.5, 0.7, 1.0])
def test_overlay(opacity):
    image, label = example()
    before = image.copy()
    result = overlay(image, label, PALETTE, opacity)
    colours = {0: None, 1: PALETTE[1], 2: PALETTE[2], 255: VOID_COLOUR}
    plain = 0
    for i, j in np.ndindex(label.shape):
        if on_a_border(label, i, j):
            assert tuple(result[i, j]) == (255, 255, 255)
        elif label[i, j] == 0:
            assert tuple(result[i, j]) == tuple(image[i, j])
            plain += 1
        else:
            for channel in range(3):
                mixed = (1 - opacity) * image[i, j, channel] + opacity * float(colours[label[i, j]][channel])
                assert abs(result[i, j, channel] - mixed) <= 0.5 + 1e-6
    assert plain > 50
    np.testing.assert_array_equal(image, before)


def test_overlay_of_background_alone_is_the_image():
    image, label = example()
    np.testing.assert_array_equal(overlay(image, np.zeros_like(label), PALETTE), image)


def test_overlay_takes_read_only_arrays():
    image, label = example()
    expected = overlay(image, label, PALETTE)
    image.flags.writeable = label.flags.writeable = False
    np.testing.assert_array_equal(overlay(image, label, PALETTE), expected)


def test_panel_shows_image_truth_and_prediction_side_by_side():
    image, truth = example()
    prediction = np.roll(np.where(truth == 255, 0, truth), 1, axis=1).astype(np.uint8)
    result = panel(image, truth, prediction, PALETTE)
    height, width = truth.shape
    assert result.shape == (height, 3 * width + 8, 3)
    np.testing.assert_array_equal(result[:, :width], image)
    np.testing.assert_array_equal(result[:, width + 4 : 2 * width + 4], colourise(truth, PALETTE))
    shown = result[:, 2 * width + 8 :]
    for i, j in np.ndindex(truth.shape):
        # Where nothing is scored, void hides the prediction.
        assert tuple(shown[i, j]) == (VOID_COLOUR if truth[i, j] == 255 else tuple(PALETTE[prediction[i, j]]))
    for gap in (result[:, width : width + 4], result[:, 2 * width + 4 : 2 * width + 8]):
        assert (gap == 255).all()


def test_stack_puts_pictures_of_any_size_below_each_other_on_white():
    a, b = np.full((3, 5, 3), 10, np.uint8), np.full((4, 2, 3), 20, np.uint8)
    result = stack([a, b])
    assert result.shape == (3 + 4 + 4 + 4, 5, 3)
    expected = np.full_like(result, 255)
    expected[:3] = 10
    expected[7:11, :2] = 20
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("count", [1, 2, 4, 7, 21, 60, 255])
def test_palette_png_round_trip(tmp_path, count):
    colours = voc_palette(count)
    label = np.random.default_rng(0).integers(0, count, (13, 19)).astype(np.uint8)
    label[:3] = 255
    label[4, 0] = count - 1
    save_palette_png(label, colours, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.mode == "P"
        assert picture.size == (19, 13)
        np.testing.assert_array_equal(np.asarray(picture), label)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colourise(label, colours))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_png_round_trip(tmp_path):
    image, _ = example()
    save_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(picture), image)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch, existing):
    image, label = example()
    file = tmp_path / "a.png"
    if existing:
        save_png(image, file)
    before = file.read_bytes() if existing else None

    def full_disk(self, target, **options):
        with open(target, "wb") as stream:
            stream.write(b"\x89PNG half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_palette_png(label, PALETTE, file)
    with pytest.raises(OSError, match="No space left"):
        save_png(image, file)
    assert (file.read_bytes() if file.exists() else None) == before
    # Nothing that a glob for pictures would find.
    assert sorted(tmp_path.glob("*.png")) == ([file] if existing else [])
