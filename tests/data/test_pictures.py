"""Files that are refused because they are damaged, or because Pillow reads them only in part."""

import numpy as np
import pytest
from drawn import bmp_bytes, mask, picture, tiff_bytes
from PIL import Image

from fcn_jax.data.pictures import convert_to_rgb, open_picture
from fcn_jax.errors import InputError


def refuse(file, what="image"):
    """The error of a file."""
    with pytest.raises(InputError) as caught:
        open_picture(file, what)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_files_of_several_frames_are_refused(tmp_path, kind):
    frames = [Image.fromarray(picture()) for _ in range(3)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    assert refuse(tmp_path / "a") == (
        "image a has 3 frames or pages: an example is one image and one mask; save the one that is meant as PNG"
    )
    frames[0].save(tmp_path / "a", kind, save_all=True)
    assert open_picture(tmp_path / "a", "image").image.size == (9, 6)


def test_what_git_leaves_of_a_file_that_was_not_fetched(tmp_path):
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert refuse(tmp_path / "a.png", "mask") == (
        "mask a.png is a pointer of Git LFS, not the picture itself; fetch it with git lfs pull"
    )


def test_only_the_photograph_of_a_file_of_a_phone_is_read(tmp_path):
    photograph = Image.fromarray(picture())
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (9, 6))])
    assert open_picture(tmp_path / "a.jpg", "image").format == "MPO"


def test_bands_that_pillow_leaves_out(tmp_path):
    bands = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff_bytes([bands.tobytes()], (6, 9), 8, 2, samples=4, extra=0))
    assert refuse(tmp_path / "a.tif").startswith("image a.tif has 4 bands, of which 3 would be used: an image has red,")
    # The same file whose fourth band is transparency.
    (tmp_path / "b.tif").write_bytes(tiff_bytes([bands.tobytes()], (6, 9), 8, 2, samples=4, extra=2))
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "b.tif", "image").image), bands)


def test_samples_whose_bits_the_decoder_counts_wrongly(tmp_path):
    label = mask(6, 9, 2) % 2
    (tmp_path / "a.bmp").write_bytes(bmp_bytes(8, [(0, 0, 0), (255, 255, 255)], [row.tobytes() for row in label], 9))
    assert refuse(tmp_path / "a.bmp") == (
        "image a.bmp has samples of 8 bits, which the decoder of BMP files takes for 1; save it as PNG"
    )
    rows = [row.tobytes() for row in np.packbits(label, axis=1)]
    (tmp_path / "a.tif").write_bytes(tiff_bytes(rows, (6, 2), 4, 1, planar=2))
    assert refuse(tmp_path / "a.tif", "mask").startswith("mask a.tif has samples of 4 bits, which the decoder of TIFF")


def test_planes_of_16_bits_that_the_decoder_takes_for_bytes(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes such files")
    planes = np.arange(3 * 6 * 9, dtype=np.uint16).reshape(3, 6, 9) * 300
    for array in (planes, planes.astype(np.uint8)):
        tifffile.imwrite(tmp_path / f"{array.dtype}.tif", array, photometric="rgb", planarconfig="separate")
    assert refuse(tmp_path / "uint16.tif").startswith("image uint16.tif has samples of 16 bits, which the decoder of T")
    eight = np.asarray(open_picture(tmp_path / "uint8.tif", "image").image)
    np.testing.assert_array_equal(eight, np.moveaxis(planes.astype(np.uint8), 0, -1))


def test_palettes_with_transparent_colours_become_rgb(tmp_path):
    colours = np.array([[9, 8, 7], [200, 100, 50]], np.uint8)
    indices = np.random.default_rng(0).integers(0, 2, (6, 9)).astype(np.uint8)
    with Image.fromarray(indices) as image:
        image.putpalette(colours.tobytes())
        image.save(tmp_path / "a.png", transparency=bytes([255, 10]))
    image = open_picture(tmp_path / "a.png", "image").image
    np.testing.assert_array_equal(np.asarray(convert_to_rgb(image)), colours[indices])


@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
def test_real_file_cut_short(voc_dir, tmp_path, kind):
    file = sorted((voc_dir / "VOC2012" / kind).iterdir())[0]
    data = file.read_bytes()
    what = "image" if kind == "JPEGImages" else "mask"
    lengths = [0, 1, 50, 1000, len(data) // 2, len(data) * 9 // 10, *range(len(data) - 40, len(data) - 12)]
    for length in lengths:  # the last 12 bytes of a PNG are its end mark, after the checksum of the pixels
        (tmp_path / file.name).write_bytes(data[:length])
        with pytest.raises(InputError, match=rf"^{what} {file.name} cannot be decoded"):
            open_picture(tmp_path / file.name, what)


def test_real_mask_with_a_flipped_bit(voc_dir, tmp_path):
    file = sorted((voc_dir / "VOC2012/SegmentationClass").iterdir())[0]
    start = file.read_bytes().index(b"IDAT") + 4
    generator = np.random.default_rng(0)
    for place in generator.integers(start, file.stat().st_size - 16, 100):  # Pillow's decoder alone passes 5 in 100
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << generator.integers(8)
        (tmp_path / file.name).write_bytes(data)
        with pytest.raises(InputError, match="cannot be decoded"):
            open_picture(tmp_path / file.name, "mask")


def test_damaged_jpegs_are_refused_as_by_decoding_all_pixels(voc_dir, tmp_path):
    """The check computes few of the pixels, and must read as much of the file."""
    rng = np.random.default_rng(0)
    kinds = {"baseline": {"format": "JPEG"}, "progressive": {"format": "JPEG", "progressive": True}}
    kinds["several images"] = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (50, 40))]}
    for kind, options in kinds.items():
        refused = 0
        for file in sorted((voc_dir / "VOC2012/JPEGImages").iterdir())[:5]:
            with Image.open(file) as image:
                image.save(tmp_path / "whole.jpg", **options)
            whole = (tmp_path / "whole.jpg").read_bytes()
            start, end = whole.index(b"\xff\xda"), whole.index(b"\xff\xd9") - 2
            noise = [(place, rng.integers(0, 256, 8, np.uint8).tobytes()) for place in rng.integers(start, end, 10)]
            markers = [(place, b"\xff\x02") for place in rng.integers(start + 20, end, 2)]  # not allowed there
            for place, damage in noise + markers:
                data = bytearray(whole)
                data[place : place + len(damage)] = damage
                (tmp_path / "a.jpg").write_bytes(data)
                try:
                    with Image.open(tmp_path / "a.jpg") as image:
                        image.load()
                except OSError:
                    refused += 1
                    with pytest.raises(InputError, match=r"image a\.jpg cannot be decoded"):
                        open_picture(tmp_path / "a.jpg", "image")
                else:
                    open_picture(tmp_path / "a.jpg", "image")
        assert refused, kind


@pytest.mark.parametrize("case", ["kept", "maybe lossless", "grey", "turned"])
def test_all_pixels_are_computed_only_if_they_are_used(tmp_path, case):
    orientation = Image.Exif()
    orientation[0x0112] = 6 if case == "turned" else 1
    with Image.fromarray(picture(6, 8)) as image:
        image.convert("L" if case == "grey" else "RGB").save(tmp_path / "a.jpg", exif=orientation)
    if case == "maybe lossless":  # the marker of lossless images, here in a comment
        data = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xfe\0\4\xff\xc3" + data[2:])
    found = open_picture(tmp_path / "a.jpg", "image").image
    assert bool(found.tile) == (case == "kept")  # Pillow keeps no tile of what it has loaded
