"""Images beyond Pillow's limit."""

import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from drawn import make_folder, mask, picture, png_chunk, save
from one_task import read_pair
from PIL import Image

from fcn_jax.data import large_images as module
from fcn_jax.data.dataset import prepare
from fcn_jax.data.label_map import LabelMap
from fcn_jax.data.large_images import ANY, lift_limit, make_room, read_size
from fcn_jax.errors import InputError


def black_png(file: Path, width: int, height: int) -> Path:
    """Write a PNG of 1-bit zeros, which takes a thousandth of the time that Pillow takes."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    )
    return file


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """An image file and its mask file, both above twice Pillow's limit."""
    save(picture(), tmp_path / "a.png")
    save(mask(), tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    return tmp_path / "a.png", tmp_path / "b.png"


def test_a_pair_beyond_the_limit_is_read(pair):
    with pytest.raises(Image.DecompressionBombError):
        Image.open(pair[0])
    with make_room(*pair):
        assert read_pair([pair[0]], pair[1], 3, LabelMap()).shape == (6, 9)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_a_data_set_beyond_the_limit(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    for limit in (20, 40):  # Pillow refuses the 54 pixels, and warns of them
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        (example,) = prepare("folder", tmp_path / "data", tmp_path / f"cache{limit}").source("val")
        assert example.image.shape == (6, 9, 3)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP"])
def test_formats_whose_decoders_check_the_limit_again(tmp_path, monkeypatch, kind):
    Image.fromarray(picture()).save(tmp_path / "a", kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with lift_limit(), Image.open(tmp_path / "a") as image:
        image.load()


def test_the_limit_is_back_after_the_last_of_several_threads(pair):
    """The first thread leaves its block while the second one is in its own."""
    both, first_left = threading.Barrier(2), threading.Event()

    def work(is_first):
        with lift_limit():
            both.wait()
            if not is_first:
                first_left.wait()
                assert Image.MAX_IMAGE_PIXELS == ANY
        if is_first:
            first_left.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, [True, False]))
    assert Image.MAX_IMAGE_PIXELS == 20


def test_another_thread_lifts_the_limit_while_an_image_is_opened(pair, monkeypatch):
    """Pillow compares twice the limit with the size of the image. Here the other thread comes in between."""

    class Limit(int):
        def __rmul__(self, factor):
            with lift_limit():
                return factor * Image.MAX_IMAGE_PIXELS

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Limit(60))
    with Image.open(pair[0]) as image:
        assert image.size == (9, 6)


def test_too_little_memory(pair, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 53)
    monkeypatch.setattr(module, "BYTES", 10**9)
    monkeypatch.setattr(module, "read_free_memory", lambda: 53.9e9)
    with pytest.raises(InputError) as caught, make_room(*pair):
        pytest.fail("the block runs")
    assert str(caught.value) == (
        "a.png has 9x6 pixels; to read it takes up to 54.0 GB of memory, and 53.9 GB are free: cut it into tiles, or "
        "close other programs"
    )
    monkeypatch.setattr(module, "read_free_memory", lambda: 54e9)
    with pytest.raises(InputError, match=r"a\.png has 9x6 pixels"), make_room(*pair):
        raise MemoryError
    with make_room(*pair):  # the turn and the limit have been given back
        pass
    assert Image.MAX_IMAGE_PIXELS == 20


def test_what_is_larger_than_the_header_says_is_refused(tmp_path, monkeypatch):
    """An icon of Apple, whose header says 128x128, with a PNG in it that is larger."""
    png = black_png(tmp_path / "png", 400, 400).read_bytes()
    entry = b"ic07" + struct.pack(">I", 8 + len(png)) + png
    (tmp_path / "a.icns").write_bytes(b"icns" + struct.pack(">I", 8 + len(entry)) + entry)
    monkeypatch.setattr(module, "LARGE", 128 * 128)
    with make_room(tmp_path / "a.icns"):
        assert Image.MAX_IMAGE_PIXELS == 128 * 128
        with pytest.raises(Image.DecompressionBombError), Image.open(tmp_path / "a.icns") as image:
            image.load()


def test_large_images_are_read_one_at_a_time(pair, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 53)
    inside = []

    def work(_):
        with make_room(*pair):
            inside.append(1)
            time.sleep(0.005)  # lets the others run
            assert len(inside) == 1
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))


def test_sizes(tmp_path, pair):
    assert read_size(pair[0]) == (9, 6)
    (tmp_path / "c.png").write_bytes(b"no image")
    assert read_size(tmp_path / "c.png") == read_size(tmp_path / "none.png") == (0, 0)


def test_200_million_pixels(tmp_path):
    """More than twice what Pillow warns of."""
    file = black_png(tmp_path / "a.png", 20_000, 10_000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)
    with make_room(file), Image.open(file) as image:
        assert not np.asarray(image).any()
