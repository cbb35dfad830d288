"""What the header of an image file tells."""

import io

import numpy as np
import pytest
from drawn import mask, picture, tiff_bytes
from PIL import Image

from fcn_jax.data.headers import Layout, count_bands, count_frames, is_deep, parse_raw_mode, read_raw_mode


@pytest.mark.parametrize(
    ("raw_mode", "layout"),
    [
        ("1", Layout("1", 1, False)),
        ("1;I", Layout("1", 1, True)),
        ("1;IR", Layout("1", 1, True)),
        ("L", Layout("L", 8, False)),
        ("L;I", Layout("L", 8, True)),
        ("L;2R", Layout("L", 2, False)),
        ("L;4IR", Layout("L", 4, True)),
        ("P;1", Layout("P", 1, False)),
        ("LX", None),
        ("LA", None),
        ("L;16B", None),
        ("P;4L", None),
        ("RGB", None),
        ("L scaled from 0..20", None),
    ],
)
def test_raw_modes(raw_mode, layout):
    assert parse_raw_mode(raw_mode) == layout


@pytest.mark.parametrize(
    ("content", "raw_mode"),
    [
        (b"P5 2 1 255\n\0\1", "L"),
        (b"P5 2 1 7\n\0\1", "L scaled from 0..7"),
        (b"P2 2 1 255\n0 1", "L"),
        (b"P4 2 1\n\0", "1;I"),
        (b"P6 1 1 1000\n" + bytes(6), "RGB scaled from 0..1000"),
    ],
)
def test_raw_mode_of_netpbm_files(content, raw_mode):
    with Image.open(io.BytesIO(content)) as image:
        assert read_raw_mode(image) == raw_mode


@pytest.mark.parametrize(
    ("raw_mode", "deep"),
    [
        ("L", False),
        ("L;4", False),
        ("BGR;16", False),  # 5 or 6 bits a colour
        ("RGB scaled from 0..200", False),
        ("RGB scaled from 0..4095", True),
        ("I;16B", True),
        ("RGB;16L", True),
        ("LA;16B", True),
    ],
)
def test_samples_of_more_than_8_bits(raw_mode, deep):
    assert is_deep(raw_mode, b"P6") is deep


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_samples_of_jpeg_2000(alone, bits):
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG2000", no_jp2=alone)
    content = bytearray(stream.getvalue())
    start = content.index(b"\xff\x4f\xff\x51")
    assert content[start + 42 : start + 51 : 3] == bytes((7, 7, 7))
    content[start + 45] = bits - 1
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"
        assert is_deep(read_raw_mode(image), bytes(content)) is (bits > 8)


def test_raw_mode_of_a_gif_and_of_a_file_without_parts(tmp_path):
    for kind, raw_mode in (("GIF", "P"), ("WEBP", "RGB")):
        Image.fromarray(mask()).save(tmp_path / kind, kind)
        with Image.open(tmp_path / kind) as image:
            assert read_raw_mode(image) == raw_mode


@pytest.mark.parametrize(
    ("kinds", "count"), [((0,), 1), ((0, 1, 1), 1), ((0, 4, 5), 1), ((0, 2, 2), 3), ((0, 1, 0), 2)]
)
def test_pages_of_a_tiff_without_its_smaller_versions(kinds, count):
    content = tiff_bytes([bytes(54)], (6, 9), 8, 1, kinds=kinds)
    with Image.open(io.BytesIO(content)) as image:
        assert count_frames(image) == count


def test_pages_of_kinds_that_pillow_does_not_read():
    content = bytearray(tiff_bytes([bytes(54)], (6, 9), 8, 1, kinds=(0, 4)))
    photometric = content.rindex(b"\x06\1\3\0\1\0\0\0\1")  # the tag of the last page
    content[photometric + 8] = 4  # a transparency mask, as GDAL marks it
    with Image.open(io.BytesIO(content)) as image:
        with pytest.raises(SyntaxError):
            image.seek(1)
        assert count_frames(image) == 1
    content[photometric - 8 * 12 + 8 :] = b""  # cut short within the tags
    with pytest.warns(UserWarning, match="Corrupt"), Image.open(io.BytesIO(content)) as image:
        assert count_frames(image) == 1


@pytest.mark.parametrize(("bands", "extra", "used"), [(3, None, 3), (4, 0, 3), (4, 2, 4)])
def test_bands_of_a_tiff(bands, extra, used):
    content = tiff_bytes([bytes(54 * bands)], (6, 9), 8, 2, samples=bands, extra=extra)
    with Image.open(io.BytesIO(content)) as image:
        assert count_bands(image) == (bands, used)
    stream = io.BytesIO()
    Image.fromarray(np.dstack([picture()] * 2)[..., :4]).save(stream, "PNG")
    with Image.open(stream) as image:
        assert count_bands(image) == (4, 4)
