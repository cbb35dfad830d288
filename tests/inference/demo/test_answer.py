"""What the page of a demo shows for files of every kind, without the page."""

import io
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fcn_jax.errors import InputError, OutOfMemory
from fcn_jax.inference.demo.answer import KEPT, SIDE, answer, draw, forget

PALETTE = np.array([[0, 0, 0], [200, 10, 30], [0, 255, 1]], np.uint8)


def segment(image: np.ndarray) -> np.ndarray:
    """Class 2 where a pixel is bright, 1 in the first row."""
    class_map = np.where(image.astype(int).sum(axis=-1) > 384, 2, 0).astype(np.uint8)
    class_map[0] = 1
    return class_map


def write(file: Path, image: Image.Image, **options) -> Path:
    image.save(file, **options)
    return file


@pytest.fixture
def grey() -> Image.Image:
    """Dark on the left, bright on the right, 8 rows and 12 columns."""
    return Image.fromarray(np.where(np.arange(12) < 4, 10, 240).astype(np.uint8)[None].repeat(8, axis=0))


def test_an_answer_has_the_class_map_and_the_shares(tmp_path, grey):
    shown = answer(segment, PALETTE, write(tmp_path / "a b.png", grey), tmp_path)
    assert list(shown.shares.items()) == [(2, 7 * 8 / 96), (0, 7 * 4 / 96), (1, 12 / 96)]
    expected = np.array([[1] * 12] + [[0] * 4 + [2] * 8] * 7)
    np.testing.assert_array_equal(shown.class_map, expected)
    assert shown.file.name == "a b.png"
    with Image.open(shown.file) as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), expected)
    assert shown.warnings == []


def test_a_large_photograph_is_shown_smaller_and_its_class_map_is_whole(tmp_path):
    rows = np.arange(3000)[:, None, None] // 100 % 2 * np.full((1, 1000, 3), 255)
    shown = answer(segment, PALETTE, write(tmp_path / "tall.png", Image.fromarray(rows.astype(np.uint8))), tmp_path)
    assert shown.image.shape == (SIDE, round(SIDE / 3), 3)
    assert shown.class_map.shape == shown.image.shape[:2]
    assert set(np.unique(shown.class_map)) <= {0, 1, 2}
    with Image.open(shown.file) as written:
        np.testing.assert_array_equal(np.asarray(written), segment(rows.astype(np.uint8)))


def test_drawings_have_names_of_their_own_and_few_are_kept(tmp_path, grey):
    shown = answer(segment, PALETTE, write(tmp_path / "a.png", grey), tmp_path)
    files = [draw(shown, PALETTE, opacity, [0, 1, 2]) for opacity in np.linspace(0, 1, KEPT + 4)]
    assert len(set(files)) == KEPT + 4
    assert [file.exists() for file in files] == [False] * 3 + [True] * (KEPT + 1)
    with Image.open(files[-1]) as last:
        assert last.getpixel((11, 7)) == (0, 255, 1)
        assert last.getpixel((0, 7)) == (0, 0, 0)
    with Image.open(draw(shown, PALETTE, 0.0, [0, 1, 2])) as plain:
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(grey.convert("RGB")))
    forget(shown)
    forget(None)
    assert not shown.folder.exists()


@pytest.mark.parametrize("kind", ["CMYK", "animated", "turned"])
def test_unusual_images_are_shown(tmp_path, grey, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    file, warnings = {
        "CMYK": lambda: (write(tmp_path / "a.jpg", grey.convert("CMYK"), quality=100), 0),
        "animated": lambda: (
            write(tmp_path / "a.gif", grey, save_all=True, append_images=[grey.point(lambda v: 9)]),
            1,
        ),
        "turned": lambda: (write(tmp_path / "a.jpg", grey.convert("RGB"), exif=exif, quality=100), 0),
    }[kind]()
    shown = answer(segment, PALETTE, file, tmp_path)
    expected = np.array([[1] * 12] + [[0] * 4 + [2] * 8] * 7)
    if kind == "turned":
        expected = np.array([[1] * 8] + [[0] * 8] * 3 + [[2] * 8] * 8)
    np.testing.assert_array_equal(shown.class_map, expected)
    assert len(shown.warnings) == warnings
    assert all("a.gif has 2 frames" in text for text in shown.warnings)


def truncate(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.resize((99, 99)).save(stream, "JPEG")
    return stream.getvalue()[:-400]


def claim_to_be_huge(image: Image.Image) -> bytes:
    """A PNG of few bytes whose header has 100 times 10^9 pixels."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = stream.getvalue()
    header = b"IHDR" + (10**6).to_bytes(4) + (10**5).to_bytes(4) + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4) + data[33:]


def deep(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(image).astype(np.uint16) * 256).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda image: b"a text", r"cannot be read as an image \(cannot identify image file\); give"),
        (lambda image: b"", "cannot be read as an image|is empty"),
        (truncate, "truncated|cannot be read"),
        (claim_to_be_huge, "1000000x100000 pixels"),
        (deep, "more than 8 bits"),
    ],
    ids=["text", "empty", "truncated", "huge", "16 bits"],
)
def test_bad_files_are_named_without_their_place_on_the_server(tmp_path, grey, make, message):
    file = tmp_path / "holiday.png"
    file.write_bytes(make(grey))
    with pytest.raises(InputError, match=message) as error:
        answer(segment, PALETTE, file, tmp_path)
    assert "holiday.png" in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB")])
def test_a_lack_of_memory_is_said(tmp_path, grey, error):
    def fail(image: np.ndarray) -> np.ndarray:
        raise error

    with pytest.raises(OutOfMemory, match=r"memory ran out for a\.png, which has 12x8 pixels; give a smaller image"):
        answer(fail, PALETTE, write(tmp_path / "a.png", grey), tmp_path)


def test_other_errors_of_the_network_are_not_hidden(tmp_path, grey):
    def fail(image: np.ndarray) -> np.ndarray:
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        answer(fail, PALETTE, write(tmp_path / "a.png", grey), tmp_path)
