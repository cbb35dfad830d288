"""Images and masks as they are kept, and those that are refused."""

import io
import zlib

import numpy as np
import pytest
from drawn import mask, picture, png_bytes, png_chunk, save
from one_task import read_pair
from PIL import Image

from fcn_jax.data.checks import read_tasks
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.sources.source import Labels
from fcn_jax.errors import InputError


@pytest.fixture
def pair(tmp_path):
    """An image file and its mask file."""
    image, label = tmp_path / "images/z.png", tmp_path / "labels/z.png"
    save(picture(), image)
    save(mask(), label)
    return image, label


def read(image, label, classes=3, void=()):
    """The pixels of what is stored for a pair of files."""
    (image,), label, counts, shape, _ = read_pair([image], label, classes, LabelMap(void))
    image, label = (np.asarray(Image.open(io.BytesIO(data))) for data in (image, label))
    assert shape == label.shape == image.shape[:2]
    assert image.dtype == label.dtype == np.uint8
    assert counts.tolist() == [np.count_nonzero(label == value) for value in range(256)]
    return image, label


def refuse(image, label, **options):
    """The lines of the error."""
    with pytest.raises(InputError) as caught:
        read(image, label, **options)
    return str(caught.value).splitlines()


# Images


def test_jpeg_and_png_in_rgb_are_kept_byte_for_byte(pair):
    image, label = pair
    assert read_pair([image], label, 3, LabelMap()).images[0] == image.read_bytes()
    save(picture(), image.with_suffix(".jpg"), quality=80)
    assert (
        read_pair([image.with_suffix(".jpg")], label, 3, LabelMap()).images[0] == image.with_suffix(".jpg").read_bytes()
    )


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("L", "jpg"),
        ("1", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("RGB", "bmp"),
        ("RGB", "tif"),
    ],
)
def test_images_that_convert_to_rgb_without_loss(pair, mode, suffix):
    file = pair[0].with_suffix(f".{suffix}")
    save(picture(), file, mode)
    np.testing.assert_array_equal(read(file, pair[1])[0], np.asarray(Image.open(file).convert("RGB")))


@pytest.mark.parametrize("kind", ["CMYK", "I;16", "RGB;16B", "RGB scaled", "F"])
def test_images_that_would_lose_something(pair, kind):
    file = pair[0]
    if kind == "CMYK":
        save(picture(), file := file.with_suffix(".jpg"), "CMYK")
    elif kind == "RGB;16B":
        file.write_bytes(png_bytes(16, 2, [bytes(9 * 6)] * 6, (6, 9)))
    elif kind == "RGB scaled":
        (file := file.with_suffix(".ppm")).write_bytes(b"P6 9 6 65535\n" + bytes(6 * 9 * 6))
    else:
        array = picture()[..., 0]
        save(array.astype(np.uint16 if kind == "I;16" else np.float32), file := file.with_suffix(".tif"))
    (line,) = refuse(file, pair[1])
    assert line.startswith(
        f"image {file.name} is of mode {kind.removesuffix(';16B').removesuffix(' scaled')} (samples "
    )
    assert "8-bit RGB without loss" in line


def test_transparent_image(pair):
    image = np.dstack([picture(), np.full((6, 9), 255, np.uint8)])
    image[2, 3, 3] = 254
    save(image, pair[0])
    (line,) = refuse(*pair)
    assert line.startswith("image z.png has transparent pixels")


def test_transparent_colour_of_an_rgb_png(pair):
    image = picture()
    save(image, pair[0], transparency=tuple(int(v) for v in image[0, 0]))
    assert "has transparent pixels" in refuse(*pair)[0]
    unused = next(c for c in ((i, 0, 0) for i in range(256)) if not (image == c).all(-1).any())
    save(image, pair[0], transparency=unused)
    np.testing.assert_array_equal(read(*pair)[0], image)


# EXIF orientation: the size of the mask decides


@pytest.fixture(params=["PNG", "TIFF"])  # Pillow turns TIFFs itself
def kind(request):
    return request.param


def save_turned(pair, kind, orientation, size, mask_size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(picture(*size), pair[0], format=kind, exif=exif), save(mask(*mask_size), pair[1])


@pytest.mark.parametrize(
    ("orientation", "turn"), [(6, lambda a: np.rot90(a, -1)), (8, np.rot90), (5, lambda a: a.swapaxes(0, 1))]
)
def test_image_is_turned_as_its_mask_is(pair, kind, orientation, turn):
    stored, drawn = save_turned(pair, kind, orientation, (5, 8), (8, 5))
    image, label = read(*pair)
    np.testing.assert_array_equal(image, turn(stored))
    np.testing.assert_array_equal(label, drawn)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_image_is_not_turned_if_its_mask_is_not(pair, kind, orientation):
    stored, _ = save_turned(pair, kind, orientation, (5, 8), (5, 8))
    np.testing.assert_array_equal(read(*pair)[0], stored)


@pytest.mark.parametrize(("orientation", "size"), [(3, (5, 8)), (6, (7, 7))])
def test_orientation_that_the_sizes_do_not_show(pair, kind, orientation, size):
    save_turned(pair, kind, orientation, size, size)
    (line,) = refuse(*pair)
    assert line.startswith(f"image z.png has EXIF orientation {orientation}, and its size cannot tell")


def test_damaged_parts_that_the_pixels_do_not_depend_on_are_ignored(pair, capsys):
    """EXIF data that are no EXIF, and EXIF data whose checksum is wrong."""
    image = save(picture(), pair[0], exif=b"Exif\0\0garbage!")
    label = save(mask(), pair[1])
    np.testing.assert_array_equal(read(*pair)[0], image)
    assert "warning: EXIF data (not a TIFF file" in capsys.readouterr().err
    for file in pair:
        with Image.open(file) as opened:
            opened.save(file, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
        file.write_bytes(file.read_bytes().replace(b"MM\0*", b"MM\1*"))
    read_image, read_label = read(*pair)
    np.testing.assert_array_equal(read_image, image)
    np.testing.assert_array_equal(read_label, label)
    warned = capsys.readouterr().err.splitlines()
    assert warned == [f"warning: the part eXIf of {f.name} is damaged and ignored; the pixels are whole" for f in pair]


# Masks


@pytest.mark.parametrize("case", ["grey", "palette", "transparent", "two parts", "no checksum of the end"])
def test_masks_keep_their_compressed_pixels_and_lose_their_palette(tmp_path, case):
    label = np.random.default_rng(0).integers(0, 21, (6, 8), np.uint8)
    data = png_bytes(8, 0 if case == "grey" else 3, [row.tobytes() for row in label], label.shape)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in label))
    whole = png_chunk(b"IDAT", pixels)
    if case == "transparent":
        data = data.replace(whole, png_chunk(b"tRNS", bytes(5)) + png_chunk(b"tEXt", b"Software\0a tool") + whole)
    elif case == "two parts":
        data = data.replace(whole, png_chunk(b"IDAT", pixels[:9]) + png_chunk(b"IDAT", pixels[9:]))
    elif case == "no checksum of the end":
        data = data[:-4]
    (tmp_path / "a.png").write_bytes(data)
    save(picture(6, 8), tmp_path / "a.jpg")
    _, stored, _, shape, _ = read_pair([tmp_path / "a.jpg"], tmp_path / "a.png", 21, LabelMap())
    assert shape == label.shape
    assert pixels[:9] in stored
    assert pixels[9:] in stored
    with Image.open(io.BytesIO(stored)) as image:
        image.verify()
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.mode, image.info) == ("L", {})
        np.testing.assert_array_equal(np.asarray(image), label)


def test_void_labels_become_255(pair):
    row = np.array([0, 1, 2, 11, 12, 255, 2, 1, 0], np.uint8)
    save(np.tile(row, (6, 1)), pair[1])
    np.testing.assert_array_equal(read(*pair, void=(11, 12))[1][0], [0, 1, 2, 255, 255, 255, 2, 1, 0])


def test_labels_that_are_no_class(pair):
    label = mask()
    label[0, 0] = 37
    save(label, pair[1])
    (line,) = refuse(*pair)
    assert line.startswith("label 37 in z.png is outside 0..2 and is not 255;")
    save(np.tile(np.arange(9, dtype=np.uint8), (6, 1)), pair[1])
    (line,) = refuse(*pair, void=(8,))
    assert line.startswith("labels 3, 4, 5, 6, 7 in z.png are outside 0..2 and are not 255;")


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_grey_mask_whose_white_is_the_first_class_of_a_table_of_colours(pair, mode):
    """As ImageMagick saves a picture in black and white, in 8 bits or in one."""
    image, label = pair
    drawn = np.where(mask() > 0, np.uint8(255), np.uint8(0))
    table = LabelMap(colours=(((255, 255, 255), 0), ((0, 0, 0), 1)))
    save(drawn, label, mode)
    with pytest.raises(InputError, match=r"mask z\.png is grey.*: 0 is class 0 as a number and class 1 as the colour"):
        read_pair([image], label, 2, table)
    save(drawn, label, "RGB")
    stored = Image.open(io.BytesIO(read_pair([image], label, 2, table).label))
    np.testing.assert_array_equal(stored, np.where(drawn > 0, 0, 1))


# Both


def test_sizes_that_differ(pair):
    save(picture(7, 8), pair[0])
    (line,) = refuse(*pair)
    assert line.startswith("mask z.png has 9x6 pixels, its image z.png 8x7: they must have the same size")


def test_masks_of_two_tasks_have_one_size(pair, tmp_path):
    save(mask(6, 8), tmp_path / "geometric/z.png")
    tasks = [Labels(name, ("a", "b", "c"), LabelMap()) for name in ("semantic", "geometric")]
    with pytest.raises(InputError, match=r"mask z\.png has 8x6 pixels, mask z\.png 9x6: they must have the same size"):
        read_tasks([pair[0]], [pair[1], tmp_path / "geometric/z.png"], tasks)


def test_problems_of_both_files_are_listed(pair):
    pair[0].write_bytes(b"no picture")
    pair[1].unlink()
    image, label = refuse(*pair)
    assert image.startswith("image z.png cannot be decoded (cannot identify image file")
    assert label.startswith(f"mask z.png cannot be read in {pair[1].parent} (No such file or directory)")
