"""Outlines in the files of labelme."""

import base64
import io
import json

import numpy as np
import pytest
from drawn import picture, save
from PIL import Image

from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.labelme import find
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

HEIGHT, WIDTH = 20, 30


def shape(label, points, kind="polygon", **rest):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **rest}


def box(label, x1, y1, x2, y2):
    return shape(label, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def write(file, *shapes, image="a.jpg", size=(HEIGHT, WIDTH), **rest):
    """Write a file as labelme does."""
    own = {"version": "5.5.0", "flags": {}, "imagePath": image, "imageData": None}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**own, "imageHeight": size[0], "imageWidth": size[1], "shapes": shapes, **rest}))


def draw(tmp_path, *shapes):
    """Return the mask of an image and the names of the classes."""
    save(picture(HEIGHT, WIDTH), tmp_path / "data/a.jpg")
    write(tmp_path / "data/a.json", *shapes)
    data = prepare("labelme", tmp_path / "data", tmp_path / "cache")
    return data.source("train")[0].label, data.class_names


def test_later_shapes_cover_earlier_ones(tmp_path):
    label, names = draw(
        tmp_path,
        box("dog", 2, 2, 20, 18),
        box("cat", 5, 5, 10, 10),
        box("_background_", 6, 6, 8, 8),  # a hole
        box("dog", 9, 9, 40, 12),
        box("__ignore__", -5, 15, 4, 99),
    )
    assert names == ("_background_", "cat", "dog")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:18, 2:20] = 2
    expected[5:10, 5:10] = 1
    expected[6:8, 6:8] = 0
    expected[9:12, 9:] = 2
    expected[15:, :4] = 255
    np.testing.assert_array_equal(label, expected)


def encode(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("left", "top"), [(4, 6), (-3, -2), (26, 17), (40, 3), (3, -20)])
def test_kinds_of_shapes(tmp_path, left, top):
    mask = np.random.default_rng(0).integers(0, 2, (5, 7), np.uint8)
    corners = [[left, top], [left + 6, top + 4]]
    label, _ = draw(
        tmp_path,
        shape("a", [[25, 9], [20, 3]], "rectangle"),  # from any corner to the opposite one
        shape("b", [[10, 12], [13, 16]], "circle"),  # its centre and a point of its border
        shape("c", corners, "mask", mask=encode(mask)),
        shape("d", [[1, 1], [3, 1], [3, 3], [1, 3]], "oriented_rectangle"),
        shape("d", [[27, 1], [29, 1], [29, 3], [27, 3]], None),
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 20:25] = 1
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if (row + 0.5 - 12) ** 2 + (column + 0.5 - 10) ** 2 < 25:
                expected[row, column] = 2
    for row, column in np.argwhere(mask):
        if 0 <= row + top < HEIGHT and 0 <= column + left < WIDTH:
            expected[row + top, column + left] = 3
    expected[1:3, 1:3] = expected[1:3, 27:29] = 4
    np.testing.assert_array_equal(label, expected)


def test_splits_and_places_of_images(tmp_path, capsys):
    root = tmp_path / "data"
    for name in ("images/a.jpg", "val/b.png", "val/deep/c.jpg", "val/d.jpg"):
        save(picture(HEIGHT, WIDTH), root / name)
    write(root / "train/a.json", image="..\\images\\a.jpg")
    write(root / "val/b.json", image="b.png", imageData="of no use")
    write(root / "val/deep/c.json", image="/home/me/c.jpg")
    write(root / ".trash/x.json")
    found = find(Request(root, tmp_path))
    listed = [(split, e.name, e.image) for split, examples in found.splits.items() for e in examples]
    assert listed == [
        ("train", "a", root / "images/a.jpg"),
        ("val", "b", root / "val/b.png"),
        ("val", "deep/c", root / "val/deep/c.jpg"),
    ]
    assert "left out are images without a JSON file, 1 in all, as d.jpg; for an image" in capsys.readouterr().err


@pytest.mark.parametrize("flag", [False, True])
def test_a_file_of_classes_decides_the_order(tmp_path, flag):
    save(picture(HEIGHT, WIDTH), tmp_path / "data/a.jpg")
    write(tmp_path / "data/a.json", box("dog", 1, 1, 3, 3))
    file = tmp_path / ("names.txt" if flag else "data/labels.txt")
    file.write_text("__ignore__\n_background_\ndog\ncat\n")
    data = prepare("labelme", tmp_path / "data", tmp_path / "cache", classes=file if flag else None)
    assert data.class_names == ("_background_", "dog", "cat")
    assert data.pixels["train"][0, 1] == 4


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_photographs_that_are_turned(tmp_path, size):
    exif = Image.Exif()
    exif[0x0112] = 8
    pixels = save(picture(HEIGHT, WIDTH), tmp_path / "data/a.png", exif=exif)
    write(tmp_path / "data/a.json", box("cat", 2, 1, 9, 4), image="a.png", size=size)
    _, image, label = prepare("labelme", tmp_path / "data", tmp_path / "cache").source("train")[0]
    np.testing.assert_array_equal(image, pixels if size[0] == HEIGHT else np.rot90(pixels))
    assert (label[1:4, 2:9] == 1).all()
    assert label.sum() == 21


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            shape("cat", [[1, 1], [5, 5]], "line"),
            r"train: shape 1 \(cat\) in a.json is a 'line' of 2 points, which has no",
        ),
        (shape("cat", [[1, 1], [5, 5]]), "is a 'polygon' of 2 points, which has no area; draw it as a polygon"),
        (shape("cat", [[1, 1]], "circle"), "is a 'circle' of 1 points, which has no area; draw it as a polygon"),
        (shape("cat", [[1, 1], [2]]), "in a.json has points that are no pairs of finite numbers x, y; draw or export"),
        (shape("cat", [[1, 1], [float("nan"), 2], [3, 3]]), "has points that are no pairs of finite numbers"),
        (shape("cat", None), "in a.json has no 'points' of the type list"),
        (shape("cat", [[1, 1], [5, 5]], "mask", mask="?"), r"has a mask that cannot be read \(.*save it anew"),
        (
            shape("cat", [[1, 1], [5, 5]], "mask", mask=encode(np.zeros((HEIGHT + 1, 2), np.uint8))),
            r"has a mask that cannot be read \(it has 2x21 pixels of mode L\)",
        ),
        (shape("cat", [[1, 1], [5, 5]], "mask"), "in a.json has no 'mask' of the type str"),
        (shape(7, []), "a shape in .*a.json has no 'label' of the type str"),
        (shape(" ", []), "a shape in .*a.json has the 'label' '', which is blank or not Unicode; give it a name"),
        (shape("\udfff", []), r"a shape in .*a.json has the 'label' '\\udfff', which is blank or not Unicode"),
    ],
)
def test_shapes_that_are_wrong(tmp_path, wrong, says):
    with pytest.raises(InputError, match=says):
        draw(tmp_path, wrong)


def test_all_files_that_are_wrong_are_listed(tmp_path):
    for number in range(12):
        write(tmp_path / f"data/{number:02}.json", size=(0, 5))
    with pytest.raises(InputError) as refused:
        find(Request(tmp_path / "data", tmp_path))
    first, *_, last = str(refused.value).splitlines()
    assert first == f"{tmp_path}/data/00.json has the size 5x0; save it anew with labelme"
    assert last == "and 2 more"


def test_a_name_that_is_not_utf8(tmp_path):
    write(tmp_path / "data/a.json")
    try:
        (tmp_path / "data/a.json").rename(tmp_path / "data/caf\udce9.json")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match=r"'caf\\udce9\.json' in .*data is a name that is not UTF-8; rename the file"):
        find(Request(tmp_path / "data", tmp_path))


def test_an_image_that_is_not_there(tmp_path):
    write(tmp_path / "data/a.json", box("cat", 1, 1, 3, 3))
    with pytest.raises(InputError, match=r"train: a.json lists the image a.jpg, which is not in .*/data; add"):
        prepare("labelme", tmp_path / "data", tmp_path / "cache")


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"labelme is not downloaded by this program; give --data.dir, which is a"):
        find(Request(None, tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"data has no JSON files; it should be a folder with the images and the JSON"):
        find(Request(tmp_path / "data", tmp_path))
    write(tmp_path / "data/a.json")
    write(tmp_path / "data/train/a.json")
    with pytest.raises(InputError, match=r"data has JSON files, and its folder train has, too; move the former"):
        find(Request(tmp_path / "data", tmp_path))
    (tmp_path / "data/train").rename(tmp_path / "data/a b")
    with pytest.raises(InputError, match=r"'a b' in .* cannot be the name of a split"):
        find(Request(tmp_path / "data", tmp_path))
