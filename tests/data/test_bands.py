"""Images of the user's own with any channels of 8 or 16 bits."""

import struct
import sys

import numpy as np
import pytest
from drawn import mask, save
from PIL import Image

from fcn_jax.data.bands import read_bands
from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.folder import BANDS
from fcn_jax.errors import InputError

RNG = np.random.default_rng(0)


def write(root, arrays, suffix=".npy"):
    """Write data for `folder`: all images but the last to train on."""
    for index, array in enumerate(arrays):
        split = "val" if index == len(arrays) - 1 else "train"
        save(mask(*array.shape[:2]), root / f"labels/{split}/{index}.png")
        file = root / f"images/{split}/{index}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array) if suffix == ".npy" else Image.fromarray(array).save(file)
    (root / "classes.txt").write_text("ground\ntree\nwater\n")
    return root


@pytest.mark.parametrize(("channels", "dtype"), [(5, "uint16"), (7, "uint8"), (3, "uint16")])
def test_bands_with_mean_and_deviation_of_the_training_split(tmp_path, channels, dtype):
    shapes = [(6, 9, channels), (8, 5, channels), (7, 7, channels)]
    arrays = [RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for shape in shapes]
    for array in arrays:
        array[..., 0] = 7  # a channel that says nothing
    data = prepare("folder", write(tmp_path / "data", arrays), tmp_path, inputs=("bands",))
    for example, array in zip([*data.source("train"), *data.source("val")], arrays, strict=True):
        assert example.image.dtype == dtype
        np.testing.assert_array_equal(example.image, array)
    pixels = np.concatenate([array.reshape(-1, channels) for array in arrays[:2]]).astype(np.float64)
    given = data.input
    np.testing.assert_allclose(given.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(given.std, np.maximum(pixels.std(axis=0), 1), rtol=1e-12)
    assert (given.channels, given.dtype) == ((("bands", channels),), dtype)
    # It is not built anew, and the colours of the same folder are another data set.
    again = prepare("folder", tmp_path / "data", tmp_path, inputs=("bands",))
    assert (again.folder, again.input) == (data.folder, given)


def test_grey_png_of_16_bits(tmp_path):
    arrays = [RNG.integers(0, 65536, (6, 9)).astype(np.uint16) for _ in range(2)]
    data = prepare("folder", write(tmp_path / "data", arrays, ".png"), tmp_path, inputs=("bands",))
    np.testing.assert_array_equal(data.source("train")[0].image[..., 0], arrays[0])
    with pytest.raises(InputError, match=r"image 0\.png is of mode I;16 .* which does not convert"):
        prepare("folder", tmp_path / "data", tmp_path)


def test_images_must_have_the_same_channels(tmp_path):
    arrays = [np.ones((4, 4, 5), np.uint16), np.ones((4, 4, 4), np.uint16), np.ones((4, 4, 5), np.uint16)]
    root = write(tmp_path / "data", arrays)
    for skip in (False, True):  # the first image may be the odd one, and none of the others is damaged
        with pytest.raises(InputError, match="train: 1 has 4 channels of uint16, and images before it have 5"):
            prepare("folder", root, tmp_path, inputs=("bands",), skip_bad=skip)
    with pytest.raises(InputError, match=r"data\.inputs is colour bands; an example of folder has one image"):
        prepare("folder", root, tmp_path, inputs=("colour", "bands"))


@pytest.mark.parametrize(
    "array", [np.ones((4, 4, 2)), np.ones((4, 4), np.int32), np.ones((0, 4, 2), np.uint8), np.ones(4, np.uint8)]
)
def test_arrays_that_are_no_images(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"bands image a\.npy (is .*it must be uint8 or uint16|cannot be read)"):
        read_bands(tmp_path / "a.npy", BANDS)


def test_files_that_are_no_arrays(tmp_path):
    np.save(tmp_path / "a.npy", RNG.integers(0, 255, (40, 40, 3), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    for content in (b"", b"abc", data[:-1], data[:100], data.replace(b"(40, 40, 3)", b"(40, 99999999999, 3)")):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"bands image a\.npy cannot be read .*; write it anew with numpy\.save"):
            read_bands(tmp_path / "a.npy", BANDS)


def test_large_and_small_ends_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[1, 258]]], ">u2"))
    array = read_bands(tmp_path / "a.npy", BANDS)
    assert array.dtype == np.uint16
    assert array.tolist() == [[[1, 258]]]


def test_tiff(tmp_path, monkeypatch):
    grey = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    np.testing.assert_array_equal(read_bands(tmp_path / "grey.tif", BANDS)[..., 0], grey)
    Image.fromarray(RNG.integers(0, 256, (6, 9, 3), np.uint8)).save(tmp_path / "rgb.tif")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", None)
        with pytest.raises(InputError, match=r"several channels, and reading them needs tifffile"):
            read_bands(tmp_path / "rgb.tif", BANDS)
    tifffile = pytest.importorskip("tifffile", reason="TIFFs with several channels are read by tifffile")
    array = RNG.integers(0, 65536, (6, 9, 5)).astype(np.uint16)
    for number, options in enumerate(
        [{"planarconfig": "contig"}, {"planarconfig": "separate"}, {"compression": "zlib"}, {"bigtiff": True}]
    ):
        file = tmp_path / f"{number}.tif"
        planes = np.moveaxis(array, -1, 0) if options.get("planarconfig") == "separate" else array
        tifffile.imwrite(file, planes, photometric="minisblack", **({"planarconfig": "contig"} | options))
        np.testing.assert_array_equal(read_bands(file, BANDS), array)
    tifffile.imwrite(tmp_path / "pages.tif", np.moveaxis(array, -1, 0), photometric="minisblack")
    np.testing.assert_array_equal(read_bands(tmp_path / "pages.tif", BANDS), array)
    circle = bytearray((tmp_path / "0.tif").read_bytes())
    (first,) = struct.unpack_from("<I", circle, 4)
    (entries,) = struct.unpack_from("<H", circle, first)
    struct.pack_into("<I", circle, first + 2 + 12 * entries, first)  # the page after the first one is the first one
    (tmp_path / "circle.tif").write_bytes(circle)
    with pytest.raises(InputError, match=r"circle\.tif cannot be decoded \(its pages point in a circle\)"):
        read_bands(tmp_path / "circle.tif", BANDS)
    (tmp_path / "a.tif").write_bytes((tmp_path / "0.tif").read_bytes()[:200])
    with pytest.raises(InputError, match=r"bands image a\.tif cannot be decoded .*; save it anew, uncompressed or as"):
        read_bands(tmp_path / "a.tif", BANDS)


def test_samples_that_pillow_changes_are_refused(tmp_path):
    """It scales those of another range to 8 or 16 bits, and inverts those of which 0 is white."""
    samples = np.array([[500, 7], [0, 1000]], ">u2")
    (tmp_path / "scaled.pgm").write_bytes(b"P5 2 2 1000\n" + samples.tobytes())
    (tmp_path / "whole.pgm").write_bytes(b"P5 2 2 65535\n" + samples.tobytes())
    (tmp_path / "scaled8.pgm").write_bytes(b"P5 2 2 100\n" + bytes([50, 1, 0, 100]))
    Image.fromarray(np.array([[5, 1], [0, 15]], np.uint8)).quantize(16).save(tmp_path / "four.png", bits=4)
    Image.fromarray(np.array([[1, 0]], np.uint8)).save(tmp_path / "white.tif", tiffinfo={262: 0})
    for name in ("scaled.pgm", "scaled8.pgm", "four.png", "white.tif"):
        with pytest.raises(InputError, match="one channel of 8 or 16 bits"):
            read_bands(tmp_path / name, BANDS)
    np.testing.assert_array_equal(read_bands(tmp_path / "whole.pgm", BANDS)[..., 0], samples)
