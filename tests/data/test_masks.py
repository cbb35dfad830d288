"""Masks of every kind: the numbers in the file, or an error."""

import numpy as np
import PIL
import pytest
from drawn import bmp_bytes, mask, png_bytes, save, tiff_bytes
from PIL import Image

from fcn_jax.data.masks import read_samples
from fcn_jax.data.pictures import open_picture
from fcn_jax.errors import InputError

RNG = np.random.default_rng(0)


def read(file, in_colour=False):
    """The samples of a file."""
    samples = read_samples(open_picture(file, "mask"), file.name, in_colour)
    assert samples.dtype == np.uint8
    return samples


def write(file, content):
    file.write_bytes(content)
    return file


def refuse(file):
    """The error of a file."""
    with pytest.raises(InputError) as caught:
        read(file)
    return str(caught.value)


def numbers(bits, height=6, width=8):
    """Random numbers, and rows of them packed with so many bits each, the highest first."""
    label = RNG.integers(0, 2**bits, (height, width), np.uint8)
    unpacked = np.unpackbits(label[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    return label, np.packbits(unpacked, axis=1)


@pytest.mark.parametrize("kind", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png(tmp_path, kind, bits):
    label, rows = numbers(bits)
    content = png_bytes(bits, kind, [row.tobytes() for row in rows], label.shape)
    np.testing.assert_array_equal(read(write(tmp_path / "a.png", content)), label)


@pytest.mark.parametrize("photometric", [0, 1, 3], ids=["white is 0", "black is 0", "palette"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff(tmp_path, photometric, bits):
    label, rows = numbers(bits)
    content = tiff_bytes([rows.tobytes()], label.shape, bits, photometric)
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", content)), label)


@pytest.mark.parametrize("photometric", [0, 1], ids=["white is 0", "black is 0"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiff_whose_bytes_begin_with_the_lowest_bit(tmp_path, photometric, bits):
    label, rows = numbers(bits)
    rows = np.packbits(np.unpackbits(rows, axis=1), axis=1, bitorder="little")
    content = tiff_bytes([rows.tobytes()], label.shape, bits, photometric, fill_order=2)
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", content)), label)


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd", "group4"])
def test_tiff_with_lossless_compression(tmp_path, compression):
    label = RNG.integers(0, 2 if compression == "group4" else 256, (6, 9), np.uint8)
    image = Image.fromarray(label.astype(bool) if compression == "group4" else label)
    image.save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), label)


@pytest.mark.parametrize("photometric", [0, 1])
def test_compressed_tiff_in_which_white_is_0(tmp_path, photometric):
    """Pillow writes the bits inverted if 0 is to be white."""
    label = RNG.integers(0, 2, (6, 9), np.uint8)
    Image.fromarray(label.astype(bool)).save(tmp_path / "a.tif", compression="group4", tiffinfo={262: photometric})
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), label if photometric else 1 - label)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp(tmp_path, bits):
    label, rows = numbers(bits)
    colours = RNG.integers(0, 256, (2**bits, 3)).tolist()
    content = bmp_bytes(bits, colours, [row.tobytes() for row in rows], 8)
    np.testing.assert_array_equal(read(write(tmp_path / "a.bmp", content)), label)


@pytest.mark.parametrize("colours", [[(0, 0, 0), (255, 255, 255)], [(255, 255, 255), (0, 0, 0)]])
def test_bmp_of_one_bit_in_any_two_colours(tmp_path, colours):
    label, rows = numbers(1)
    content = bmp_bytes(1, colours, [row.tobytes() for row in rows], 8)
    np.testing.assert_array_equal(read(write(tmp_path / "a.bmp", content)), label)


@pytest.mark.parametrize("kind", ["BMP", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF"])
def test_grey_of_eight_bits(tmp_path, kind):
    label = RNG.integers(0, 256, (6, 9), np.uint8)
    Image.fromarray(label).save(tmp_path / "a", kind)
    np.testing.assert_array_equal(read(tmp_path / "a"), label)


def test_gif(tmp_path):
    """Two colours, and all greys in their order. Pillow numbers the colours of smaller palettes anew."""
    label = RNG.integers(0, 2, (6, 9), np.uint8)
    image = Image.fromarray(label)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read(tmp_path / "a.gif"), label)
    grey = RNG.permutation(256).astype(np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "b.gif")
    np.testing.assert_array_equal(read(tmp_path / "b.gif"), grey)
    Image.fromarray(label * np.uint8(5) + label[::-1]).save(tmp_path / "c.gif")
    assert refuse(tmp_path / "c.gif").startswith("mask c.gif is a GIF of more than two colours, which programs number")


def test_grey_of_more_bits(tmp_path):
    label = RNG.integers(0, 256, (6, 9), np.uint8)
    files = [tmp_path / name for name in ("16.png", "16.tif", "16.pgm", "-16.tif", "32.tif")]
    for file in files[:3]:
        Image.fromarray(label.astype(np.uint16)).save(file)
    write(files[3], tiff_bytes([label.astype("<i2").tobytes()], label.shape, 16, 1, sample_format=2))
    write(files[4], tiff_bytes([label.astype("<u4").tobytes()], label.shape, 32, 1))
    for file in files:
        np.testing.assert_array_equal(read(file), label, err_msg=file.name)


def test_numbers_that_are_no_labels(tmp_path):
    Image.fromarray(np.array([[3, 256], [0, 1]], np.uint16)).save(tmp_path / "a.png")
    assert refuse(tmp_path / "a.png").startswith(
        "mask a.png has samples from 0 to 256: class numbers and void are 0 to"
    )
    signed = np.array([[3, -1]], "<i4")
    write(tmp_path / "a.tif", tiff_bytes([signed.tobytes()], signed.shape, 32, 1, sample_format=2))
    assert refuse(tmp_path / "a.tif").startswith("mask a.tif has samples from -1 to 3: ")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {}),
        ("JPEG2000", {"irreversible": True}),
        ("JPEG2000", {}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_formats_that_may_be_lossy(tmp_path, kind, options):
    Image.fromarray(mask()).save(tmp_path / "a", kind, **options)
    shown = f"{kind} with compression jpeg" if options.get("compression") else kind
    assert refuse(tmp_path / "a").startswith(f"mask a has the format {shown}, which may change class numbers: they are")


def test_masks_that_hold_no_class_numbers(tmp_path):
    Image.fromarray(mask()).convert("LA").save(tmp_path / "a.png")
    says = "mask a.png is unsuitable (mode LA, samples LA): a mask holds class numbers"
    assert refuse(tmp_path / "a.png").startswith(says)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours(tmp_path, mode):
    colours = np.array([(0, 0, 0), (128, 0, 0), (128, 64, 128)], np.uint8)[mask() % 3]
    image = Image.fromarray(colours)
    (image.quantize(3) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", in_colour=True), colours)
    assert read(tmp_path / "a.png").ndim == (2 if mode == "P" else 3)  # a palette is looked up only if it is asked for


def test_grey_masks_are_numbers_beside_masks_in_colour(tmp_path):
    label = save(mask(), tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", in_colour=True), label)


def test_transparent_colours(tmp_path):
    pixels = np.full((6, 9, 4), 255, np.uint8)
    pixels[0, 0, 3] = 254
    save(pixels, tmp_path / "a.png")
    assert refuse(tmp_path / "a.png").startswith("mask a.png has transparent pixels, whose class is unknown;")


@pytest.mark.parametrize(("header", "largest"), [(b"P5 8 6 2\n", 2), (b"P5 8 6 300\n", 300), (b"P2 8 6 9\n", 9)])
def test_pgm_that_is_scaled(tmp_path, header, largest):
    samples = b"1 " * 48 if header.startswith(b"P2") else b"\0\1" * 48
    text = refuse(write(tmp_path / "a.pgm", header + samples))
    assert f"samples L scaled from 0..{largest}): a mask holds class numbers, 0 to 255, in one channel" in text


def test_plain_pgm(tmp_path):
    file = write(tmp_path / "a.pgm", b"P2 3 2 255\n0 1 2 21 254 255")
    np.testing.assert_array_equal(read(file), [[0, 1, 2], [21, 254, 255]])


@pytest.mark.parametrize("content", [b"P4 8 1\n\x55", b"P1 8 1\n01010101"])
def test_pbm_is_unclear(tmp_path, content):
    assert "a.pbm has 0 for white, as PPM files of 1 bit do" in refuse(write(tmp_path / "a.pbm", content))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_masks_are_unclear(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(mask(), tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "a", kind, exif=exif)
    assert refuse(tmp_path / "a").startswith(f"mask a has EXIF orientation {orientation}, so it is unclear")


def test_bands_and_pages(tmp_path):
    two = RNG.integers(0, 3, (6, 9, 2), np.uint8)
    write(tmp_path / "a.tif", tiff_bytes([two.tobytes()], (6, 9), 8, 1, samples=2, extra=0))
    old = int(PIL.__version__.split(".")[0]) < 13  # Pillow 12 does not know two bands without a meaning
    expected = "mask a.tif cannot be decoded" if old else "mask a.tif has 2 bands, of which 1 would be used: "
    assert refuse(tmp_path / "a.tif").startswith(expected)
    label, rows = numbers(8)
    write(tmp_path / "b.tif", tiff_bytes([rows.tobytes()], label.shape, 8, 1, kinds=(0, 0)))
    assert refuse(tmp_path / "b.tif").startswith("mask b.tif has 2 frames or pages: ")
    # A smaller version, and a transparency mask, as geographic files have them.
    write(tmp_path / "c.tif", tiff_bytes([rows.tobytes()], label.shape, 8, 1, kinds=(0, 1, 4)))
    np.testing.assert_array_equal(read(tmp_path / "c.tif"), label)
