"""Pictures of labels, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fcn_jax.data.dataset import Example
from fcn_jax.data.labels import palette as voc_palette
from fcn_jax.data.tasks import Task
from fcn_jax.inference.visualize import GAP, VOID_COLOUR, Panels, colourise, overlay, save_palette_png, save_png, stack

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


def test_void_has_its_colour_in_vocs_palette():
    assert tuple(voc_palette(256)[255]) == VOID_COLOUR


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


@pytest.mark.parametrize("shown", [(), (0,), (2,), (0, 1), (1, 2, 255), range(256)])
def test_overlay_of_chosen_classes(shown):
    """Hidden classes look as one: there is no line between them."""
    image, label = example()
    result = overlay(image, label, PALETTE, 0.6, shown)
    merged = np.where(np.isin(label, list(shown)), label.astype(int), -1)
    colours = {0: PALETTE[0], 1: PALETTE[1], 2: PALETTE[2], 255: np.array(VOID_COLOUR)}
    for i, j in np.ndindex(label.shape):
        if on_a_border(merged, i, j):
            assert tuple(result[i, j]) == (255, 255, 255)
        elif merged[i, j] == -1:
            assert tuple(result[i, j]) == tuple(image[i, j])
        else:
            assert np.abs(result[i, j] - (0.4 * image[i, j] + 0.6 * colours[merged[i, j]])).max() <= 0.5 + 1e-5


def test_overlay_of_background_alone_is_the_image():
    image, label = example()
    np.testing.assert_array_equal(overlay(image, np.zeros_like(label), PALETTE), image)


def test_overlay_colours_the_first_class_unless_it_is_black():
    """As CamVid's sky, which is no background."""
    image, label = example()
    bright = PALETTE + np.array([[9], [0], [0]], np.uint8)
    result = overlay(image, label, bright, 1.0)
    sky = {tuple(result[i, j]) for i, j in np.argwhere(label == 0) if not on_a_border(label, i, j)}
    assert sky == {(9, 9, 9)}


def test_overlay_takes_read_only_arrays():
    image, label = example()
    expected = overlay(image, label, PALETTE)
    image.flags.writeable = label.flags.writeable = False
    np.testing.assert_array_equal(overlay(image, label, PALETTE), expected)


def examples(*sizes: tuple[int, int]) -> list[tuple[Example, np.ndarray]]:
    """Examples whose labels are classes 0 to 2, 4 and void, with predictions of classes 0 to 3."""
    generator = np.random.default_rng(1)
    return [
        (
            Example(
                str(index),
                generator.integers(0, 256, (*size, 3), np.uint8),
                generator.choice(np.array([0, 1, 2, 4, 255], np.uint8), size),
            ),
            generator.integers(0, 4, size).astype(np.uint8),
        )
        for index, size in enumerate(sizes)
    ]


# Class 5 occurs nowhere.
COLOURS = np.array([[0, 0, 0], [200, 10, 30], [0, 255, 1], [9, 8, 255], [200, 0, 200], [250, 250, 3]], np.uint8)
NAMES = ("ground", "disc", "square", "star", "ring", "cross")


def draw_panels(pairs: list[tuple[Example, np.ndarray]], **options) -> tuple[np.ndarray, list[np.ndarray]]:
    """The picture, and its part above the first panels followed by the rows of panels."""
    panels = Panels([example for example, _ in pairs], [Task("", NAMES, COLOURS)], **options)
    for example, prediction in reversed(pairs):
        panels.add(example, prediction)
    picture = panels.draw()
    below, rows = picture.shape[0] - GAP, []
    for example, _ in reversed(pairs):
        height = enlarge(example.label).shape[0]
        rows.insert(0, picture[below - height : below])
        below -= height + GAP
    return picture, [picture[: below + GAP], *rows]


def enlarge(picture: np.ndarray) -> np.ndarray:
    """Repeat pixels by the least whole factor that makes the longer side at least 240."""
    factor = 1
    while factor * max(picture.shape[:2]) < 240:
        factor += 1
    ones = np.ones((factor, factor), np.uint8)
    return np.kron(picture, ones if picture.ndim == 2 else ones[..., None])


@pytest.mark.parametrize("size", [(80, 96), (96, 60), (250, 300), (1, 1), (240, 2)])
def test_panels_show_image_truth_and_whole_prediction(size):
    (pair,) = examples(size)
    example, prediction = pair
    picture, (_, row) = draw_panels([pair])
    expected = [
        enlarge(panel) for panel in (example.image, colourise(example.label, COLOURS), colourise(prediction, COLOURS))
    ]
    width, column = expected[0].shape[1], (picture.shape[1] - GAP) // 3
    assert max(expected[0].shape[:2]) >= 240
    for place, panel in enumerate(expected):
        left = GAP + place * column
        np.testing.assert_array_equal(row[:, left : left + width], panel)
        assert (row[:, left - GAP : left] == 255).all()


def test_rows_of_several_sizes_are_in_the_order_of_the_split():
    pairs = examples((250, 300), (300, 250), (60, 80))
    _, (_, *rows) = draw_panels(pairs)
    for (example, _), row in zip(pairs, rows, strict=True):
        image = enlarge(example.image)
        np.testing.assert_array_equal(row[:, GAP : GAP + image.shape[1]], image)


def test_of_large_images_every_nth_pixel_is_shown():
    ((example, prediction),) = examples((700, 2100))
    panels = Panels([example], [Task("", NAMES, COLOURS)])
    panels.add(example, prediction)
    picture = panels.draw()
    np.testing.assert_array_equal(picture[-GAP - 234 : -GAP, GAP : GAP + 700], example.image[::3, ::3])
    assert picture.shape[1] == 3 * (700 + GAP) + GAP


def test_the_legend_has_the_classes_that_occur():
    (pair,) = examples((80, 96))
    _, (top, _) = draw_panels([pair])
    colours = {tuple(colour) for colour in top.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in COLOURS[:5].tolist()} <= colours
    assert VOID_COLOUR in colours
    assert tuple(COLOURS[5].tolist()) not in colours
    example, prediction = pair
    without_void = example._replace(label=np.ones_like(example.label)), np.full_like(prediction, 3)
    _, (top, _) = draw_panels([without_void])
    colours = {tuple(colour) for colour in top.reshape(-1, 3).tolist()}
    assert colours & {VOID_COLOUR, *map(tuple, COLOURS[1:].tolist())} == {tuple(COLOURS[i].tolist()) for i in (1, 3)}


def test_the_legend_names_classes_and_columns_have_headings(monkeypatch):
    written, text = [], ImageDraw.ImageDraw.text

    def record(draw, place, words, *arguments, **options):
        written.append(words)
        text(draw, place, words, *arguments, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    _, (top, _) = draw_panels(examples((80, 96)))
    assert written == ["ground", "disc", "square", "star", "ring", "void", "image", "truth", "prediction"]
    assert (top == 0).all(axis=-1).any()


def test_a_long_legend_takes_several_lines_and_a_long_name_widens_the_picture():
    label = np.arange(40, dtype=np.uint8).reshape(5, 8)
    example, colours = Example("a", np.zeros((5, 8, 3), np.uint8), label), voc_palette(40)

    def draw(names: list[str]) -> np.ndarray:
        panels = Panels([example], [Task("", names, colours)])
        panels.add(example, label)
        return panels.draw()

    short, long = draw(list("abcdefgh" * 5)), draw(["a long name of a class"] * 40)
    assert long.shape[0] > short.shape[0]
    assert long.shape[1] == short.shape[1]
    wide = draw(["n" * 200] * 40)
    assert wide.shape[1] > 200 * 8
    for picture in (short, long, wide):
        legend = np.unique(picture[: -GAP - 150].reshape(-1, 3) @ [1, 256, 65536])
        assert np.isin(colours @ np.array([1, 256, 65536]), legend).all()


def test_only_the_first_examples_are_shown():
    pairs = examples((20, 30), (20, 30), (20, 30))
    two, _ = draw_panels(pairs, count=2)
    panels = Panels([example for example, _ in pairs[:2]], [Task("", NAMES, COLOURS)])
    for pair in pairs[:2]:
        panels.add(*pair)
    np.testing.assert_array_equal(two, panels.draw())


def test_nothing_is_drawn_without_examples():
    (pair, other) = examples((20, 30), (20, 30))
    panels = Panels([pair[0]], [Task("", NAMES, COLOURS)])
    assert panels.draw() is None
    panels.add(*other)
    assert panels.draw() is None


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
