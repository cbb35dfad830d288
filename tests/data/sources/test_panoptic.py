"""Panoptic masks in COCO's format, against a loop over the pixels of their files."""

import copy
import json
import os

import numpy as np
import pytest
from drawn import picture, png_bytes, save
from faults.mutations import VALUES
from PIL import Image

from fcn_jax.cli import main
from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.panoptic import find
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

HEIGHT, WIDTH = 20, 30
CATEGORIES = [
    {"id": 200, "name": "rug-merged", "supercategory": "textile", "isthing": 0, "color": [1, 2, 3]},
    {"id": 3, "name": "cat", "supercategory": "animal", "isthing": 1, "color": [220, 20, 60]},
    {"id": 17, "name": "dog", "supercategory": "animal", "isthing": 1, "color": [0, 0, 0]},
]
SEGMENTS = {1: 3, 255: 17, 256: 200, 65_536: 3, 70_000: 200, 2**24 - 1: 17}  # number: category


def segment(number, category, **rest):
    return {"id": number, "category_id": category, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0, **rest}


def draw_numbers(seed=0, numbers=(0, *SEGMENTS)):
    return np.random.default_rng(seed).choice(np.array(numbers), (HEIGHT, WIDTH))


def save_mask(numbers, file):
    """Write numbers of segments as the format says: in red, then in green, then in blue."""
    channels = [numbers % 256, numbers // 256 % 256, numbers // 65_536]
    save(np.stack(channels, axis=-1).astype(np.uint8), file)


def describe(image=1, name="a", segments=SEGMENTS, size=(HEIGHT, WIDTH)):
    """What a JSON file says of an image, and of its mask."""
    listed = {"id": image, "file_name": f"{name}.jpg", "height": size[0], "width": size[1], "license": 1}
    items = [segment(number, category) for number, category in segments.items()]
    return listed, {"image_id": image, "file_name": f"{name}.png", "segments_info": items}


def write(file, *described, categories=CATEGORIES):
    images, annotations = zip(*described, strict=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    # The order of the annotations is not that of the images.
    file.write_text(json.dumps({"images": images, "annotations": annotations[::-1], "categories": categories}))
    return file


def make(root, names="a", split="train", categories=CATEGORIES, **options):
    """Make a split in COCO's layout."""
    described = [describe(10 + place, name, **options) for place, name in enumerate(names)]
    for place, name in enumerate(names):
        save(picture(HEIGHT, WIDTH), root / f"{split}2017/{name}.jpg")
        save_mask(draw_numbers(place), root / f"annotations/panoptic_{split}2017/{name}.png")
    return write(root / f"annotations/panoptic_{split}2017.json", *described, categories=categories)


def look_up(file, name):
    """Find the label of each pixel of a mask by the definition of the format, one by one."""
    content = json.loads(file.read_text())
    (image,) = [image["id"] for image in content["images"] if image["file_name"] == f"{name}.jpg"]
    (annotation,) = [each for each in content["annotations"] if each["image_id"] == image]
    order = sorted(category["id"] for category in content["categories"])
    rows = []
    with Image.open(file.with_suffix("") / annotation["file_name"]) as mask:
        for y in range(mask.height):
            rows.append([])
            for x in range(mask.width):
                red, green, blue = mask.getpixel((x, y))
                number = red + 256 * green + 256**2 * blue
                category = [each["category_id"] for each in annotation["segments_info"] if each["id"] == number]
                rows[-1].append(order.index(category[0]) if category else 255)
                assert category or number == 0
    return rows


def test_a_pixel_has_the_category_of_its_segment(tmp_path):
    root = tmp_path / "data"
    files = {"train": make(root, "ba"), "val": make(root, "c", split="val")}
    data = prepare("panoptic", root, tmp_path / "cache")
    assert data.class_names == ("cat", "dog", "rug-merged")
    assert data.palette.tolist() == [[220, 20, 60], [0, 0, 0], [1, 2, 3]]
    assert data.splits == {"train": 2, "val": 1}
    assert [example.name for example in data.source("train")] == ["b", "a"]
    for split, file in files.items():
        for example in data.source(split):
            assert example.label.tolist() == look_up(file, example.name)
            with Image.open(root / f"{split}2017/{example.name}.jpg") as image:
                np.testing.assert_array_equal(example.image, np.asarray(image))
    assert {0, 1, 2, 255} == set(np.unique(data.source("val")[0].label).tolist())


def test_crowds_have_their_category(tmp_path):
    file = make(tmp_path / "data")
    content = json.loads(file.read_text())
    content["annotations"][0]["segments_info"][0]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    label = prepare("panoptic", tmp_path / "data", tmp_path / "cache").source("train")[0].label
    assert set(label[draw_numbers() == 1].tolist()) == {0}


def test_a_segment_without_pixels(tmp_path):
    make(tmp_path / "data", segments={**SEGMENTS, 5: 3})
    data = prepare("panoptic", tmp_path / "data", tmp_path / "cache")
    assert data.pixels["train"][0, :3].tolist() == [
        sum(int((draw_numbers() == number).sum()) for number, category in SEGMENTS.items() if category == wanted)
        for wanted in (3, 17, 200)
    ]


LAYOUTS = {
    "coco": ("annotations/panoptic_train2017.json", "annotations/panoptic_train2017", "train2017/a.jpg"),
    "masks beside the images": ("annotations/panoptic_train2017.json", "panoptic_train2017", "train2017/a.jpg"),
    "images": ("annotations/panoptic_train.json", "annotations/panoptic_train", "images/train/a.jpg"),
    "flat": ("panoptic_train.json", "panoptic_train", "a.jpg"),
    "json alone": ("panoptic_train.json", "annotations/panoptic_train", "images/a.jpg"),
    "a folder within": (
        "annotations/panoptic_train2017.json",
        "annotations/panoptic_train2017/panoptic_train2017",
        "train2017/a.jpg",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    root, (file, masks, image) = tmp_path / "data", LAYOUTS[layout]
    save(picture(HEIGHT, WIDTH), root / image)
    save_mask(draw_numbers(), root / masks / "a.png")
    write(root / file, describe())
    for other in ("instances_train2017", "panoptic_image_info_test-dev2017"):  # which have no panoptic masks
        (root / file).with_name(f"{other}.json").write_text("{}")
    found = find(Request(root, tmp_path))
    (example,) = found.splits["train"]
    assert (example.name, example.image, example.mask) == ("a", root / image, root / masks / "a.png")
    assert (example.draw() == 255).tolist() == (draw_numbers() == 0).tolist()


def test_splits_are_ordered_and_named_as_those_of_coco(tmp_path):
    for split in ("val", "minival", "train"):
        make(tmp_path / "data", split=split)
    assert list(find(Request(tmp_path / "data", tmp_path)).splits) == ["train", "val", "minival2017"]


def test_numbers_of_images_and_categories_may_be_text_and_images_in_folders(tmp_path):
    root = tmp_path / "data"
    save(picture(HEIGHT, WIDTH), root / "images/train/aachen/a.jpg")
    save_mask(draw_numbers(numbers=(0, 7, 7001)), root / "panoptic_train/a.png")
    categories = [
        {"id": number, "name": name} for number, name in (("b", "sky"), (11, "sea"), ("a", "caf\u0065\u0301 "))
    ]
    listed, annotation = describe("aachen_000000", segments={7: "b", 7001: 11})
    write(root / "panoptic_train.json", ({**listed, "file_name": "aachen\\a.jpg"}, annotation), categories=categories)
    found = find(Request(root, tmp_path))
    assert found.class_names == ("sea", "caf\u00e9", "sky")
    (example,) = found.splits["train"]
    assert (example.name, example.image) == ("aachen/a", root / "images/train/aachen/a.jpg")
    meant = {0: 255, 7: 2, 7001: 0}
    assert example.draw().tolist() == [[meant[n] for n in row] for row in draw_numbers(numbers=(0, 7, 7001)).tolist()]


@pytest.mark.parametrize("colour", [None, "absent"])
def test_colours_are_used_if_all_categories_have_one(tmp_path, colour):
    categories = copy.deepcopy(CATEGORIES)
    categories[1]["color"] = colour
    if colour == "absent":
        del categories[1]["color"]
    make(tmp_path / "data", categories=categories)
    assert find(Request(tmp_path / "data", tmp_path)).colours is None


def test_as_many_classes_as_labels(tmp_path):
    categories = [{"id": number, "name": f"c{number}"} for number in range(1, 256)]
    make(tmp_path / "data", categories=categories, segments=dict.fromkeys(SEGMENTS, 255))
    data = prepare("panoptic", tmp_path / "data", tmp_path / "cache")
    assert data.class_names[254] == "c255"
    assert data.pixels["train"][0, 254] == (draw_numbers() > 0).sum()


@pytest.mark.parametrize("changed", ["mask", "file"])
def test_a_changed_file_is_built_again(tmp_path, changed):
    root = tmp_path / "data"
    file = make(root)
    first = prepare("panoptic", root, tmp_path / "cache")
    if changed == "mask":
        mask = root / "annotations/panoptic_train2017/a.png"
        save_mask(draw_numbers(9), mask)
        os.utime(mask, ns=(0, 1))
    else:
        write(file, describe(10, segments=dict.fromkeys(SEGMENTS, 3)))
    again = prepare("panoptic", root, tmp_path / "cache")
    assert again.folder != first.folder
    assert again.source("train")[0].label.tolist() == look_up(file, "a")
    assert first.pixels["train"].tolist() != again.pixels["train"].tolist()


def test_the_command_that_checks_data(tmp_path, capsys):
    make(tmp_path / "data", "ab")
    main([
        "data", "check", "panoptic", "--dir", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"),
        "--out", str(tmp_path / "check.html"), "--quiet",
    ])  # fmt: skip
    shown = capsys.readouterr().out
    assert "panoptic train: 2 images" in shown
    assert "rug-merged" in shown
    assert (tmp_path / "check.html").read_text().count("<figure>") >= 2


def test_everything_wrong_with_masks_is_listed_at_once(tmp_path):
    root = tmp_path / "data"
    names = "abcdefghi"
    make(root, names)
    masks, good = root / "annotations/panoptic_train2017", draw_numbers()
    (masks / "a.png").unlink()
    save(good.astype(np.uint8), masks / "b.png")
    with Image.open(masks / "c.png") as image:
        image.convert("RGBA").save(masks / "c.png")
    (masks / "d.png").write_bytes(png_bytes(16, 2, [bytes(WIDTH * 6)] * HEIGHT, (HEIGHT, WIDTH)))
    with Image.open(masks / "e.png") as image:
        image.save(masks / "e.png", format="BMP")
    (masks / "f.png").write_bytes((masks / "f.png").read_bytes()[:-60])
    save_mask(good[:, :-1], masks / "g.png")
    good[0, :9] = [8, 8, 8, 9, 9, 65_535, 2**24 - 2, 2, 4]
    save_mask(good, masks / "h.png")
    (root / "train2017/i.jpg").unlink()
    with pytest.raises(InputError) as refused:
        prepare("panoptic", root, tmp_path / "cache")
    heading, *lines = str(refused.value).splitlines()
    assert heading == "9 things are wrong with the 9 examples of panoptic:"
    file, kind = "panoptic_train2017.json", "a panoptic mask is a PNG in RGB with 8 bits, whose colours are the numbers"
    for line, start in zip(
        lines,
        [
            f"train: {file} needs the mask a.png, which is not in {masks}; add the mask, or remove it from that file",
            f"train: {file} lists the image i.jpg, which is not in {root / 'annotations'}; add the image",
            f"train: mask b.png is a PNG of mode L (samples L); {kind}",
            f"train: mask c.png is a PNG of mode RGBA (samples RGBA); {kind}",
            f"train: mask d.png is a PNG of mode RGB (samples RGB;16B); {kind}",
            f"train: mask e.png is a BMP of mode RGB (samples BGR); {kind}",
            "train: mask f.png cannot be decoded (",
            f"train: mask g.png has 29x20 pixels, and {file} has 30x20 for its image; they must be the same, so get",
            f"train: mask h.png has numbers of segments that {file} does not list for it: 8 (in 3 pixels), "
            "9 (in 2 pixels), 2 (in 1 pixels), 4 (in 1 pixels), 16777214 (in 1 pixels) and 1 more; both must be of",
        ],
        strict=True,
    ):
        assert line.strip().startswith(start)


def test_an_image_of_another_size(tmp_path):
    make(tmp_path / "data", size=(HEIGHT, WIDTH + 1))
    with pytest.raises(
        InputError, match=r"mask of a.jpg in panoptic_train2017.json has 31x20 pixels, its image a.jpg 30x"
    ):
        prepare("panoptic", tmp_path / "data", tmp_path / "cache")


def test_a_huge_mask_is_refused_by_its_header(tmp_path):
    make(tmp_path / "data")
    mask = tmp_path / "data/annotations/panoptic_train2017/a.png"
    mask.write_bytes(png_bytes(8, 2, [bytes(9)], (60_000, 60_000)))
    with pytest.raises(InputError, match=r"mask a.png has 60000x60000 pixels, and panoptic_train2017.json has 30x20"):
        prepare("panoptic", tmp_path / "data", tmp_path / "cache")


def change(content, place, value):
    """Return a copy of JSON values with one that is different; `...` removes it."""
    copied = copy.deepcopy(content)
    inner = copied
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copied


IMAGE, ANNOTATION = describe()
CONTENT = {"images": [IMAGE], "annotations": [ANNOTATION], "categories": CATEGORIES}
OF_A = "the annotation of the image 1 in panoptic_train.json"
COLOUR_RULE = "it is a list of red, green and blue"


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (["images"], ..., "panoptic_train.json has no 'images' of the type list; export the file anew"),
        (["annotations"], ..., "panoptic_train.json has no 'annotations' of the type list"),
        (["categories"], {}, "panoptic_train.json has no 'categories' of the type list"),
        (["images", 0, "id"], 1.0, "an image in panoptic_train.json has no 'id' of the type int or str"),
        (["images"], [IMAGE, IMAGE], "image 1 in panoptic_train.json is listed twice, or has the size 30x20; give"),
        (["images", 0, "height"], -1, "image 1 in panoptic_train.json is listed twice, or has the size 30x-1"),
        (["images", 0, "file_name"], "\0", "image 1 in panoptic_train.json has the 'file_name' .*, which no file can"),
        (
            ["images"],
            [IMAGE, {**IMAGE, "id": 2}],
            "has no annotation for 1 of its 2 images, as a.jpg; an image has one",
        ),
        (["annotations", 0, "image_id"], 5, "annotation of the image 5 in .* is its second one, or the image is not"),
        (["annotations"], [ANNOTATION] * 2, f"{OF_A} is its second one, or the image is not in the file; an image has"),
        (["annotations", 0], None, "an annotation in panoptic_train.json has no 'image_id' of the type int or str"),
        (["annotations", 0, "file_name"], "", f"{OF_A} has the 'file_name' '', which no file can have; correct it"),
        (["annotations", 0, "segments_info"], ..., f"{OF_A} has no 'segments_info' of the type list"),
        (["annotations", 0, "segments_info", 0], 7, f"a segment in {OF_A} has no 'id' of the type int"),
        (["annotations", 0, "segments_info", 0, "id"], True, f"a segment in {OF_A} has no 'id' of the type int"),
        (
            ["annotations", 0, "segments_info", 0, "id"],
            0,
            f"segment 0 in {OF_A} is listed twice, or is not within 1 to",
        ),
        (["annotations", 0, "segments_info", 0, "id"], 2**24, f"segment 16777216 in {OF_A} is listed twice, or is not"),
        (["annotations", 0, "segments_info", 0, "id"], 255, f"segment 255 in {OF_A} is listed twice, or is not within"),
        (["annotations", 0, "segments_info", 0, "category_id"], 4, f"segment 1 in {OF_A} has the category 4, which is"),
        (
            ["categories", 0, "id"],
            3,
            "category 3 in .*, cat, has the number or the name of another category; give each",
        ),
        (["categories", 0, "name"], " dog", "category 17 in .*, dog, has the number or the name of another category"),
        (
            ["categories", 0, "name"],
            " ",
            "category 200 in .* has the 'name' '', which is blank or not Unicode; give it",
        ),
        (["categories", 0, "name"], "\ud800", r"category 200 in .* has the 'name' '\\ud800', which is blank or not"),
        (["categories", 0, "name"], 5, "category 200 in panoptic_train.json has no 'name' of the type str"),
        (["categories", 0, "color"], [0, 1, 256], rf"category 200 in .* has the color \[0, 1, 256\]; {COLOUR_RULE}"),
        (["categories", 0, "color"], [0.5, 1, 2], rf"has the color \[0.5, 1, 2\]; {COLOUR_RULE}"),
        (["categories", 0, "color"], "red", f"has the color 'red'; {COLOUR_RULE}"),
        (["categories"], [], "panoptic_train.json has 0 categories; 1 to 255 are possible"),
        (
            ["categories"],
            [{"id": number, "name": str(number)} for number in range(256)],
            "has 256 categories; 1 to 255 are possible",
        ),
    ],
)
def test_files_that_are_wrong(tmp_path, place, value, says):
    file = tmp_path / "panoptic_train.json"
    file.with_suffix("").mkdir()
    file.write_text(json.dumps(change(CONTENT, place, value)))
    with pytest.raises(InputError, match=says):
        find(Request(tmp_path, tmp_path))


def list_places(value, place=()):
    """List the place of each value in JSON values."""
    if place:
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from list_places(inner, (*place, key))


def test_any_value_anywhere_gives_an_answer_or_a_clear_error(tmp_path):
    file = tmp_path / "panoptic_train.json"
    save(picture(HEIGHT, WIDTH), tmp_path / "a.jpg")
    save_mask(draw_numbers(numbers=(0, 1)), file.with_suffix("") / "a.png")
    listed, annotation = describe(segments={1: 3})
    content = {"images": [listed], "annotations": [annotation], "categories": CATEGORIES[1:2]}
    answers = 0
    for place in list_places(content):
        for value in (*VALUES, ...):
            file.write_text(json.dumps(change(content, place, value)))
            try:
                find(Request(tmp_path, tmp_path)).splits["train"][0].draw()
                answers += 1
            except InputError:
                continue
    assert answers > 0


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null", "[]", "NaN", '{"categories": NaN}', "\ud800"])
def test_what_is_no_json_of_this_kind(tmp_path, text):
    (tmp_path / "panoptic_train.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(
        InputError, match=r"cannot be read as JSON \(.*export it anew|has no 'categories' of the type list"
    ):
        find(Request(tmp_path, tmp_path))


def test_what_is_not_there(tmp_path):
    with pytest.raises(
        InputError, match=r"panoptic is not downloaded by this program; give --data.dir, which is a folder"
    ):
        find(Request(None, tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(
        InputError, match=r"data has no file panoptic_SPLIT.json; give --data.dir, which is .*unpack train"
    ):
        find(Request(tmp_path / "data", tmp_path))
    file = write(tmp_path / "data/annotations/panoptic_val2017.json", describe())
    with pytest.raises(
        InputError,
        match=r"annotations has no folder panoptic_val2017 with the masks of panoptic_val2017.json; unpack .*2017.zip",
    ):
        find(Request(tmp_path / "data", tmp_path))
    other = write(tmp_path / "data/panoptic_val.json", describe())
    with pytest.raises(
        InputError, match=r"panoptic_val.json and .*panoptic_val2017.json are both of the split val; move"
    ):
        find(Request(tmp_path / "data", tmp_path))
    other.unlink()
    file.rename(file.with_name("panoptic_a b.json"))
    with pytest.raises(InputError, match=r"'a b' in .* cannot be the name of a split"):
        find(Request(tmp_path / "data", tmp_path))


def test_files_with_different_categories(tmp_path):
    make(tmp_path / "data")
    make(tmp_path / "data", split="val", categories=CATEGORIES[::-1])
    assert list(find(Request(tmp_path / "data", tmp_path)).splits) == ["train", "val"]
    renamed = [*CATEGORIES[:2], {**CATEGORIES[2], "name": "wolf"}]
    make(tmp_path / "data", split="val", categories=renamed)
    with pytest.raises(
        InputError, match=r"_train2017.json and panoptic_val2017.json do not have the same categories; a"
    ):
        find(Request(tmp_path / "data", tmp_path))
