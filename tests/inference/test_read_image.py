"""How each kind of image file is read for prediction."""

import io
import re

import numpy as np
import pytest
from drawn import png_bytes, tiff_bytes
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from fcn_jax.data import large_images
from fcn_jax.errors import InputError
from fcn_jax.inference.read_image import read_image

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_lossless_images_come_out_as_they_are(tmp_path):
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        file = tmp_path / f"a.{kind.lower()}"
        file.write_bytes(encoded(Image.fromarray(RGB), kind))
        result = read_image(file)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, RGB)


def test_the_content_decides_not_the_suffix(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), RGB)


def test_grey(tmp_path):
    grey = RGB[..., 0]
    for name, picture in {
        "8 bits": Image.fromarray(grey),
        "with alpha": Image.merge("LA", [Image.fromarray(grey), Image.fromarray(RGB[..., 1])]),
    }.items():
        (tmp_path / name).write_bytes(encoded(picture, "PNG"))
        np.testing.assert_array_equal(read_image(tmp_path / name), np.repeat(grey[..., None], 3, axis=-1))
    (tmp_path / "1 bit").write_bytes(encoded(Image.fromarray(grey > 128), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "1 bit")[..., 2], np.where(grey > 128, 255, 0))


def test_transparent(tmp_path):
    alpha = np.full((7, 11, 1), 90, np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(np.concatenate([RGB, alpha], axis=-1)), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def test_palette_images_give_their_colours(tmp_path):
    indices = np.random.default_rng(1).integers(0, 5, (7, 11)).astype(np.uint8)
    picture = Image.fromarray(indices)
    colours = np.array([[9, 8, 7], [255, 0, 0], [0, 250, 3], [1, 1, 1], [77, 0, 99]], np.uint8)
    picture.putpalette(colours.tobytes())
    for kind in ("PNG", "GIF"):
        (tmp_path / kind).write_bytes(encoded(picture, kind))
        np.testing.assert_array_equal(read_image(tmp_path / kind), colours[indices])


def test_cmyk(tmp_path):
    # Pure inks: no ink is white, all of cyan takes red away, black is black.
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(inks, mode="CMYK"), "JPEG", quality=100))
    expected = np.array([[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]).repeat(8, axis=0).repeat(8, axis=1)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - expected).max() < 12


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (5, lambda upright: upright.swapaxes(0, 1)),
        (7, lambda upright: upright[::-1, ::-1].swapaxes(0, 1)),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (6, lambda upright: np.rot90(upright, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_turned_by_exif(tmp_path, orientation, stored):
    # Tag 274, as a camera sets it: 6 means that the picture is to be turned clockwise to stand upright.
    exif = Image.Exif()
    exif[274] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored(RGB)))
    for kind in ("PNG", "TIFF"):  # Pillow turns TIFFs itself
        (tmp_path / kind).write_bytes(encoded(picture, kind, exif=exif))
        np.testing.assert_array_equal(read_image(tmp_path / kind), RGB)


def test_samples_of_more_than_eight_bits_are_refused(tmp_path):
    wide = np.arange(77, dtype=np.uint16).reshape(7, 11) * 800
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(wide), "PNG"))
    with pytest.raises(InputError, match=r"a\.png has more than 8 bits .*I;16"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.tif").write_bytes(encoded(Image.fromarray(wide.astype(np.float32)), "TIFF"))
    with pytest.raises(InputError, match=r"a\.tif has more than 8 bits .*F"):
        read_image(tmp_path / "a.tif")
    (tmp_path / "b.png").write_bytes(png_bytes(16, 2, [bytes(9 * 6)] * 6, (6, 9)))
    (tmp_path / "b.ppm").write_bytes(b"P6 9 6 4095\n" + bytes(6 * 9 * 6))
    for name in ("b.png", "b.ppm"):
        with pytest.raises(InputError, match=rf"{name} has more than 8 bits .*RGB"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_images_cut_short_are_refused(tmp_path, kind):
    whole = encoded(Image.fromarray(np.repeat(RGB, 4, axis=0)), kind)
    file = tmp_path / "cut.img"
    for share in (0.0, 0.1, 0.5, 0.8):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"cut\.img cannot be read as an image \(.+\)"):
            read_image(file)
    file.write_bytes(whole)
    assert read_image(file).shape == (28, 11, 3)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>404</title>", b"\x00" * 5000, b"\xff\xd8\xff"])
def test_files_that_are_no_images_are_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


def test_what_git_leaves_of_a_file_that_was_not_fetched(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(InputError, match=r"a\.jpg is a pointer of Git LFS, .* git lfs pull$"):
        read_image(tmp_path / "a.jpg")


def test_damaged_exif_data_are_ignored_with_a_warning(tmp_path, capsys):
    for name, kind in (("a.png", "PNG"), ("b.webp", "WEBP")):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(RGB), kind, exif=b"Exif\0\0II*\0"))
        assert read_image(tmp_path / name).shape == RGB.shape
    text = PngInfo()
    text.add_text("author", "somebody")
    content = encoded(Image.fromarray(RGB), "PNG", pnginfo=text)
    (tmp_path / "c.png").write_bytes(content.replace(b"somebody", b"somebodx"))  # the checksum is that of the former
    np.testing.assert_array_equal(read_image(tmp_path / "c.png"), RGB)
    warned = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\(.*\)", "(...)", line) for line in warned] == [
        "warning: EXIF data (...) of a.png is damaged and ignored; the pixels are whole",
        "warning: EXIF data (...) of b.webp is damaged and ignored; the pixels are whole",
        "warning: the part tEXt of c.png is damaged and ignored; the pixels are whole",
    ]


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read as an image \(.*No such file"):
        read_image(tmp_path / "gone.jpg")


def test_images_beyond_the_limit_of_pillow_are_read(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    for limit in (20, 50):  # Pillow refuses the 77 pixels, and warns of them
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    monkeypatch.setattr(large_images, "LARGE", 76)
    monkeypatch.setattr(large_images, "read_free_memory", lambda: 77 * large_images.BYTES - 1)
    with pytest.raises(InputError, match=r"a\.png has 11x7 pixels; to read it takes up to"):
        read_image(tmp_path / "a.png")


def test_the_first_of_several_frames_or_pages_is_read_with_a_warning(tmp_path, capsys):
    others = [Image.fromarray(255 - RGB), Image.fromarray(RGB[::-1])]
    for kind in ("PNG", "TIFF", "WEBP"):
        (tmp_path / kind).write_bytes(
            encoded(Image.fromarray(RGB), kind, save_all=True, append_images=others, lossless=True)
        )
        np.testing.assert_array_equal(read_image(tmp_path / kind), RGB)
        assert capsys.readouterr().err == f"warning: {kind} has 3 frames or pages; the first one is used\n"


def test_bands_beyond_rgb_are_left_out_with_a_warning(tmp_path, capsys):
    bands = np.concatenate([RGB, RGB[..., :1]], axis=-1)
    (tmp_path / "a.tif").write_bytes(tiff_bytes([bands.tobytes()], (7, 11), 8, 2, samples=4, extra=0))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)
    assert capsys.readouterr().err == "warning: a.tif has 4 bands; the first 3 are used\n"


def test_palettes_with_transparent_colours(tmp_path):
    with Image.fromarray(RGB[..., 0] // 128) as image:
        image.putpalette([9, 8, 7, 200, 100, 50])
        (tmp_path / "a.png").write_bytes(encoded(image, "PNG", transparency=bytes([255, 10])))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 0], np.where(RGB[0, :, 0] < 128, 9, 200))


def test_an_eps_is_not_given_to_ghostscript(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program in the file is run"))
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(header)
    with pytest.raises(InputError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")


def test_an_icon_is_not_decoded_whatever_the_size_of_its_images(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", "ICO")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")
