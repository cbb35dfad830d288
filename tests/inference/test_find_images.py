"""Which files are predicted: those that are named, in folders, and of globs."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from red_classes import encode

from fcn_jax.errors import InputError
from fcn_jax.inference.predict import describe_left_out, find_images, require_own_results
from fcn_jax.inference.read_image import read_image

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)


def touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_what_a_folder_leaves_out_is_named(tmp_path):
    touch(
        tmp_path,
        "in/a.HEIC",
        "in/b.heic",
        "in/c.jpg",
        "in/notes",
        "in/.hidden",
        "in/Thumbs.db",
        "in/deep/d.heic",
        "whole/e.jfif",
    )
    folders = [str(tmp_path / "in"), str(tmp_path / "whole"), str(tmp_path / "in" / "c.jpg")]
    assert [file.name for file in find_images(folders)] == ["c.jpg", "e.jfif"]
    assert describe_left_out(folders) == [
        f"{tmp_path}/in: left out are 3 files of kinds that cannot be read: .heic (2), no suffix (1)",
        f"{tmp_path}/in: left out are 1 sub-folder, deep; give '{tmp_path}/in/**/*.png' or the like to include them",
    ]


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jfif", "JPEG"), (".jp2", "JPEG2000"), (".avif", "AVIF"), (".qoi", None)]
)
def test_every_kind_that_pillow_reads_is_found(tmp_path, suffix, kind):
    file = tmp_path / f"a{suffix}"
    if kind is None:
        touch(tmp_path, file.name)
    else:
        file.write_bytes(encode(Image.fromarray(RGB), kind))
        assert read_image(file).shape == RGB.shape
    assert find_images([str(tmp_path)]) == [file]


def test_find_files_folders_and_globs_each_once_in_order(tmp_path):
    touch(tmp_path, "b.jpg", "a.PNG", "notes.txt", "c.jpeg", "deep/d.webp", "deep/er/e.tif", "x.png")
    folder = str(tmp_path)
    names = lambda *patterns: [file.name for file in find_images(patterns)]  # noqa: E731
    assert names(f"{folder}/x.png") == ["x.png"]
    assert names(folder) == ["a.PNG", "b.jpg", "c.jpeg", "x.png"]
    assert names(f"{folder}/*.jp*g") == ["b.jpg", "c.jpeg"]
    assert names(f"{folder}/**/*.*if") == ["e.tif"]
    assert names(f"{folder}/x.png", f"{folder}/deep", folder) == ["x.png", "d.webp", "a.PNG", "b.jpg", "c.jpeg"]
    # A file that is named is taken at its word, whatever its suffix.
    assert names(f"{folder}/notes.txt") == ["notes.txt"]


def test_a_name_with_glob_characters_is_a_file_first(tmp_path):
    (file,) = touch(tmp_path, "holiday[1].jpg")
    assert find_images([str(file)]) == [file]


def test_nothing_found(tmp_path):
    touch(tmp_path, "empty/readme.md", "a.jpg")
    with pytest.raises(InputError, match=r"nowhere\.jpg matches no file"):
        find_images([str(tmp_path / "a.jpg"), str(tmp_path / "nowhere.jpg")])
    with pytest.raises(InputError, match=r"\*\.png matches no file"):
        find_images([str(tmp_path / "*.png")])
    # A glob that matches folders alone names no image.
    with pytest.raises(InputError, match="matches no file"):
        find_images([str(tmp_path / "emp*")])
    with pytest.raises(
        InputError, match=r"empty holds no image; give another(?s:.*): left out are 1 file of .*: \.md \(1\)$"
    ):
        find_images([str(tmp_path / "empty")])


def test_files_that_would_be_written_to_the_same_place(tmp_path):
    jpg, png = touch(tmp_path, "a/one.jpg", "b/one.png")
    message = re.escape(f"{jpg} and {png} would both be written as one.png")
    with pytest.raises(InputError, match=message):
        require_own_results(find_images([str(jpg), str(png)]))
    plain, overlaid = touch(tmp_path, "c/two.jpg", "c/two_overlay.jpg")
    message = re.escape(f"{plain} and {overlaid} would both be written as two_overlay.png")
    with pytest.raises(InputError, match=message):
        require_own_results(find_images([str(tmp_path / "c")]))


def test_videos_and_images_of_one_name_have_results_of_their_own(tmp_path):
    files = touch(tmp_path, "one.mp4", "one.jpg")
    require_own_results(files)
    with pytest.raises(InputError, match="would both be written as one"):
        require_own_results([*files, *touch(tmp_path, "b/one.mov")])
    touch(tmp_path, "c/clip.mp4")
    with pytest.raises(InputError, match=r"holds no image(?s:.*)left out are videos, as clip\.mp4; name each of them"):
        find_images([str(tmp_path / "c")])


def test_hidden_files_are_passed_over(tmp_path):
    touch(tmp_path, "._a.jpg", "a.jpg")
    assert find_images([str(tmp_path)]) == [tmp_path / "a.jpg"]


def test_no_images_named():
    with pytest.raises(InputError, match="no images are named"):
        find_images([])
