"""Outlines in COCO's format, in the layouts that tools export."""

import gc
import json

import numpy as np
import pytest
from drawn import picture, save
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from fcn_jax.data.builder import SegmentationBuilder, open_records
from fcn_jax.data.dataset import prepare
from fcn_jax.data.sources.coco import find
from fcn_jax.data.sources.source import Request
from fcn_jax.errors import InputError

# pycocotools makes arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HEIGHT, WIDTH = 20, 30
CATEGORIES = [{"id": 7, "name": "dog", "supercategory": "animal"}, {"id": 3, "name": "cat"}]
CAT, DOG = 1, 2  # labels: by the numbers of the categories, after the background
BLOB = np.zeros((HEIGHT, WIDTH), bool)
BLOB[12:19, 15:29] = True
BLOB[14:16, 18:22] = False  # a hole


def box(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def pack(mask):
    packed = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def count(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F"), [1]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [*counts, mask.size - sum(counts)]}


def write(file, annotations, images=("a.jpg",), categories=CATEGORIES, size=(HEIGHT, WIDTH)):
    """Write a file of instances. Annotations are image, category and segmentation, and what is different."""
    file.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(images)]
    regions = [
        {"id": i, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0, **rest}
        for i, (image, category, segmentation, rest) in enumerate(annotations)
    ]
    file.write_text(json.dumps({"images": listed, "annotations": regions, "categories": categories}))


def make(root, annotations, **options):
    """Make a split of one image, or of those of the options, and prepare it."""
    for name in options.get("images", ("a.jpg",)):
        save(picture(HEIGHT, WIDTH), root / "images" / name)
    write(root / "annotations/instances_train.json", annotations, **options)
    return prepare("coco", root, root.parent / "cache")


def draw_expected(*boxes):
    """A mask of boxes, each on those before it."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, (x1, y1, x2, y2) in boxes:
        mask[y1:y2, x1:x2] = label
    return mask


def test_polygons_and_run_lengths(tmp_path):
    data = make(
        tmp_path / "data",
        [
            (0, 3, [box(1, 1, 5, 5), box(8, 1, 12, 5)], {}),
            (0, 7, pack(BLOB), {}),
            (0, 3, [box(20, -50, 99, 4)], {}),  # beyond the image
        ],
        images=("a.jpg", "b.png"),
    )
    assert data.class_names == ("background", "cat", "dog")
    first, second = data.source("train")
    expected = draw_expected((CAT, (1, 1, 5, 5)), (CAT, (8, 1, 12, 5)), (CAT, (20, 0, 30, 4)))
    expected[BLOB] = DOG
    np.testing.assert_array_equal(first.label, expected)
    assert second.name == "b"
    assert not second.label.any()  # an image without annotations is background


def test_the_image_is_kept_as_it_is(tmp_path):
    root = tmp_path / "data"
    data = make(root, [(0, 3, [box(1, 1, 5, 5)], {})])
    builder = SegmentationBuilder("coco", find(Request(root, tmp_path / "cache")), tmp_path / "cache")
    assert builder.data_dir == str(data.folder)
    assert open_records(builder.data_dir, ("image",), "train")[0]["image"] == (root / "images/a.jpg").read_bytes()


@pytest.mark.parametrize("make_runs", [pack, count])
def test_equals_cocos_own_program(tmp_path, make_runs):
    other = np.zeros_like(BLOB)
    other[2:9, 3:7] = True
    data = make(tmp_path / "data", [(0, 3, make_runs(BLOB), {}), (0, 7, make_runs(other), {})])
    theirs = COCO(str(tmp_path / "data/annotations/instances_train.json"))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, label in ((0, CAT), (1, DOG)):
        expected[theirs.annToMask(theirs.anns[number]) == 1] = label
    np.testing.assert_array_equal(data.source("train")[0].label, expected)


@pytest.mark.parametrize("turn", [1, -1])
def test_smaller_regions_cover_larger_ones(tmp_path, turn):
    regions = [(0, 3, [box(0, 0, 20, 20)], {}), (0, 7, [box(5, 5, 15, 15)], {}), (0, 3, [box(8, 8, 10, 10)], {})]
    label = make(tmp_path / "data", regions[::turn]).source("train")[0].label
    expected = draw_expected((CAT, (0, 0, 20, 20)), (DOG, (5, 5, 15, 15)), (CAT, (8, 8, 10, 10)))
    np.testing.assert_array_equal(label, expected)


def test_of_regions_of_one_size_the_later_covers_the_earlier(tmp_path):
    regions = [(0, 7, [box(0, 0, 9, 9)], {}), (0, 3, [box(3, 3, 12, 12)], {})]
    label = make(tmp_path / "data", regions).source("train")[0].label
    np.testing.assert_array_equal(label, draw_expected((DOG, (0, 0, 9, 9)), (CAT, (3, 3, 12, 12))))


def test_crowds_are_void(tmp_path, capsys):
    regions = [
        (0, 3, count(BLOB), {"iscrowd": 1}),
        (0, 3, [box(1, 1, 4, 4)], {}),
        (0, 7, [box(24, 17, 26, 18)], {}),
        (0, 3, [box(5, 1, 8, 4)], {}),
    ]
    label = make(tmp_path / "data", regions).source("train")[0].label
    expected = draw_expected((CAT, (1, 1, 4, 4)), (CAT, (5, 1, 8, 4)))
    expected[BLOB] = 255
    expected[17:18, 24:26] = DOG
    np.testing.assert_array_equal(label, expected)
    assert "iscrowd" not in capsys.readouterr().err


def test_a_warning_of_masks_that_cvat_calls_crowds(tmp_path, capsys):
    make(tmp_path / "data", [(0, 3, count(BLOB), {"iscrowd": 1}), (0, 7, [box(1, 1, 4, 4)], {})])
    assert "instances_train.json: most annotations of cat have iscrowd 1, so they are void" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_photographs_that_are_turned(tmp_path, size):
    """The size in the file says whether the outlines were drawn on the stored or on the turned image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = save(picture(HEIGHT, WIDTH), tmp_path / "data/images/a.png", exif=exif)
    write(tmp_path / "data/result.json", [(0, 3, [box(2, 1, 9, 4)], {})], images=("images\\a.png",), size=size)
    _, image, label = prepare("coco", tmp_path / "data", tmp_path / "cache").source("train")[0]
    np.testing.assert_array_equal(image, pixels if size[0] == HEIGHT else np.rot90(pixels, -1))
    expected = np.zeros(size, np.uint8)
    expected[1:4, 2:9] = CAT
    np.testing.assert_array_equal(label, expected)


LAYOUTS = {
    "coco": (
        ("annotations/instances_train2017.json", "a.jpg", "train2017/a.jpg"),
        ("annotations/instances_val2017.json", "b.jpg", "val2017/b.jpg"),
    ),
    "cvat": (
        ("annotations/instances_train.json", "a.jpg", "images/train/a.jpg"),
        ("annotations/instances_val.json", "b.jpg", "images/val/b.jpg"),
    ),
    "roboflow": (
        ("train/_annotations.coco.json", "a.jpg", "train/a.jpg"),
        ("valid/_annotations.coco.json", "b.jpg", "valid/b.jpg"),
    ),
    "mixed": (("train.json", "/home/me/a.jpg", "images/a.jpg"), ("val.json", "C:/b.jpg", "b.jpg")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    root = tmp_path / "data"
    for file, name, image in LAYOUTS[layout]:
        save(picture(HEIGHT, WIDTH), root / image)
        write(root / file, [(0, 3, [box(1, 1, 5, 5)], {})], images=(name,))
    if layout == "coco":
        (root / "annotations/captions_train2017.json").write_text('{"images": [], "annotations": []}')
    found = find(Request(root, tmp_path / "cache"))
    images = [(split, example.image) for split, examples in found.splits.items() for example in examples]
    pairs = zip(("train", "val"), LAYOUTS[layout], strict=True)
    assert images == [(split, root / image) for split, (_, _, image) in pairs]
    assert [example.name for example in found.splits["train"]] == ["a"]


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("annotations/instances_default.json", "a.jpg", "images/a.jpg"),  # of one task of CVAT
        ("result.json", "images/1/a.jpg", "images/1/a.jpg"),  # of Label Studio
        ("_annotations.coco.json", "a.jpg", "a.jpg"),
    ],
)
def test_a_file_without_a_split_is_train(tmp_path, file, name, image):
    save(picture(HEIGHT, WIDTH), tmp_path / "data" / image)
    write(tmp_path / "data" / file, [], images=(name,))
    found = find(Request(tmp_path / "data", tmp_path / "cache"))
    assert {split: [e.image for e in examples] for split, examples in found.splits.items()} == {
        "train": [tmp_path / "data" / image]
    }


def test_classes(tmp_path):
    root = tmp_path / "data"
    # Roboflow begins with the name of the project.
    own = [{"id": 0, "name": "animals"}, *({**c, "supercategory": "animals"} for c in CATEGORIES)]
    write(root / "train.json", [(0, 3, [box(1, 1, 5, 5)], {})], categories=own)
    write(root / "val.json", [], categories=[*own, {"id": 9, "name": " caf\u0065\u0301 "}])
    assert find(Request(root, tmp_path)).class_names == ("background", "cat", "dog", "caf\u00e9")
    write(root / "train.json", [(0, 0, [box(1, 1, 5, 5)], {})], categories=own)
    assert find(Request(root, tmp_path)).class_names[:2] == ("background", "animals")


def test_a_file_of_classes_decides_the_order(tmp_path):
    root = tmp_path / "data"
    save(picture(HEIGHT, WIDTH), root / "a.jpg")
    write(root / "train.json", [(0, 7, [box(1, 1, 5, 5)], {})])
    (tmp_path / "names.txt").write_text("dog,9,9,9\nBackground,1,1,1\nbird,5,6,7\ncat,2,2,2\n")
    data = prepare("coco", root, tmp_path / "cache", classes=tmp_path / "names.txt")
    assert data.class_names == ("Background", "dog", "bird", "cat")
    assert data.palette.tolist() == [[1, 1, 1], [9, 9, 9], [5, 6, 7], [2, 2, 2]]
    assert data.source("train")[0].label[1:5, 1:5].tolist() == [[1] * 4] * 4
    (tmp_path / "names.txt").write_text("dog\nbird\n")
    with pytest.raises(InputError, match=r"names.txt does not have cat, which the outlines name; add the names"):
        prepare("coco", root, tmp_path / "cache", classes=tmp_path / "names.txt")


def test_a_changed_file_is_built_again(tmp_path):
    first = make(tmp_path / "data", [(0, 3, [box(1, 1, 5, 5)], {})])
    again = make(tmp_path / "data", [(0, 3, [box(1, 1, 5, 6)], {})])
    assert again.folder != first.folder
    assert again.pixels["train"][0, CAT] == 20


@pytest.mark.parametrize(
    "segmentation",
    [[[1, 1], [9, 1], [9, 5], [1, 5]], [[1, 1, 8, 4]], [[]]],  # points as pairs, a box, and nothing
)
def test_annotations_without_a_polygon_of_three_points(tmp_path, segmentation):
    """They have no pixels, so they would be background without a word."""
    with pytest.raises(
        InputError, match=r"annotation 0 in .* has no polygon of three points or more; a polygon is one"
    ):
        make(tmp_path / "data", [(0, 3, segmentation, {})])
    data = make(tmp_path / "data", [(0, 3, [*segmentation, box(1, 1, 5, 5)], {})])  # a part that is too thin to matter
    assert data.pixels["train"][0, CAT] == 16


def test_everything_wrong_is_listed_at_once(tmp_path):
    root = tmp_path / "data"
    for name in ("a.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"):
        save(picture(HEIGHT, WIDTH + (name == "c.jpg")), root / name)
    regions = [
        (0, 3, [], {}),
        (3, 3, [[1, 2, 3]], {}),
        (4, 3, {"size": [HEIGHT, WIDTH], "counts": [5]}, {}),
        (5, 7, {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, {}),
    ]
    write(root / "train.json", regions, images=[f"{letter}.jpg" for letter in "abcdef"])
    with pytest.raises(InputError) as refused:
        prepare("coco", root, tmp_path / "cache")
    heading, *lines = str(refused.value).splitlines()
    assert heading == "6 things are wrong with the 6 examples of coco:"
    for line, start in zip(
        lines,
        [
            f"train: train.json lists the image b.jpg, which is not in {root}; add the image",
            "train: annotation 0 in train.json has no outline, as those of boxes; draw it",
            "train: the mask of c.jpg in train.json has 30x20 pixels, its image c.jpg 31x20: they must have the same",
            "train: annotation 1 in train.json has points that are no pairs of finite numbers x, y",
            "train: annotation 2 in train.json has run lengths that are not the counts of 30x20 pixels; export it",
            "train: annotation 3 in train.json has run lengths without counts or of the size [30, 20], not of its",
        ],
        strict=True,
    ):
        assert line.strip().startswith(start)


def change(place, value):
    """Return what writes a file of one image and one annotation with one value that is different."""

    def write_changed(file):
        write(file, [(0, 3, [box(1, 1, 5, 5)], {})])
        content = json.loads(file.read_text())
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        file.write_text(json.dumps(content))

    return write_changed


@pytest.mark.parametrize(
    ("write_file", "says"),
    [
        (lambda file: file.write_text("{"), r"train.json cannot be read as JSON \(.*export it anew"),
        (lambda file: file.write_text("[]"), "train.json has no 'categories' of the type list; export the file anew"),
        (change(["images", 0, "width"], "30"), "image 0 in train.json has no 'width' of the type int"),
        (
            change(["images", 0, "width"], 0),
            "image 0 in train.json is listed twice, or has the size 0x20; give each image",
        ),
        (
            change(["images", 0, "file_name"], ""),
            "image 0 in train.json has the 'file_name' '', which no file can have; correct it",
        ),
        (
            change(["images", 0, "file_name"], "a\0.jpg"),
            r"image 0 in train.json has the 'file_name' 'a\\x00.jpg', which",
        ),
        (change(["images", 0, "id"], 5), "annotation 0 in train.json belongs to the image 0 and the category 3, which"),
        (change(["annotations", 0, "category_id"], 4), "belongs to the image 0 and the category 4, which are not both"),
        (change(["annotations", 0], None), "annotation None in train.json has no 'image_id'"),
        (
            change(["categories", 0, "id"], 3),
            "category 3 in train.json has two names, dog and cat; give each number one name",
        ),
        (change(["categories", 0, "name"], " "), "category 7 in train.json has the 'name' '', which is blank or not"),
        (change(["categories", 0, "name"], "\ud800"), r"category 7 in train.json has the 'name' '\\ud800', which is"),
        (
            change(["categories"], [{"id": i, "name": f"c{i}"} for i in range(255)]),
            "there are 255 classes beside the background; at most 254",
        ),
    ],
)
def test_files_that_are_wrong(tmp_path, write_file, says):
    file = tmp_path / "data/train.json"
    file.parent.mkdir()
    write_file(file)
    with pytest.raises(InputError, match=says):
        find(Request(tmp_path / "data", tmp_path))


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"coco is not downloaded by this program; give --data.dir, which is a folder"):
        find(Request(None, tmp_path))
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="data has no file of instances; it should be a folder with a JSON file of"):
        find(Request(tmp_path / "data", tmp_path))
    write(tmp_path / "data/val.json", [])
    write(tmp_path / "data/valid/_annotations.coco.json", [])
    with pytest.raises(
        InputError, match=r"val.json and .*valid/_annotations.coco.json are both of the split val; move"
    ):
        find(Request(tmp_path / "data", tmp_path))
    (tmp_path / "data/val.json").rename(tmp_path / "data/a b.json")
    with pytest.raises(InputError, match=r"'a b' in .* cannot be the name of a split"):
        find(Request(tmp_path / "data", tmp_path))


def test_two_images_that_are_found_in_one_place_are_an_error(tmp_path):
    save(picture(HEIGHT, WIDTH), tmp_path / "images/0001.png")
    images = [
        {"id": number, "file_name": f"cam{number}/0001.png", "height": HEIGHT, "width": WIDTH} for number in (1, 2)
    ]
    (tmp_path / "train.json").write_text(json.dumps({"images": images, "annotations": [], "categories": CATEGORIES}))
    with pytest.raises(InputError, match=r"lists cam1/0001.png and cam2/0001.png, and both are found as .*0001.png"):
        find(Request(tmp_path, tmp_path / "cache"))
    for number in (1, 2):
        save(picture(HEIGHT, WIDTH), tmp_path / f"images/cam{number}/0001.png")
    assert len(find(Request(tmp_path, tmp_path / "cache")).splits["train"]) == 2
    images[1]["file_name"] = "cam1/0001.png"
    (tmp_path / "train.json").write_text(json.dumps({"images": images, "annotations": [], "categories": CATEGORIES}))
    with pytest.raises(InputError, match=r"train.json lists the image cam1/0001.png twice; keep one of them"):
        find(Request(tmp_path, tmp_path / "cache"))


def test_outlines_are_not_kept_once_the_data_is_prepared(tmp_path):
    save(picture(HEIGHT, WIDTH), tmp_path / "images/a.png")
    image = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
    outlines = [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": [box(2, 2, 9, 9)], "iscrowd": 0}]
    content = {"images": [image], "annotations": outlines, "categories": CATEGORIES}
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = prepare("coco", tmp_path, tmp_path / "cache")
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, SegmentationBuilder)]
    assert (data.source("train")[0].label == DOG).sum() == 49
