"""The sheet: its pictures pixel by pixel, its text, and the page in a real browser."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from drawn_scenes import draw_scene, write_scenes
from PIL import Image
from playwright.sync_api import Browser

from fcn_jax.data.dataset import Dataset, prepare
from fcn_jax.data.labels import palette
from fcn_jax.data.survey.survey import survey_dataset
from fcn_jax.inference.sheet.page import SIDE, render_sheet
from fcn_jax.inference.visualize import overlay

HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Six images to train on and three to score, of which two are repeated; names and classes look like HTML."""
    folder: Path = tmp_path_factory.mktemp("sheet")
    generator = np.random.default_rng(0)
    pairs = {}
    for split, names in (("train", ("a&amp;<b>", "b", "c", "d", "e", "f")), ("val", ("g", "h", "twin"))):
        for name in names:
            height, width = generator.integers(20, 60, 2)
            coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), np.uint8))
            label = np.zeros((height, width), np.uint8)
            label[5:15, 5:15] = generator.integers(1, 3)
            label[15:17] = 255
            image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
            pairs[split, name] = pairs["train", "b"] if name == "twin" else (image, label)
            for kind, array in zip(("images", "labels"), pairs[split, name], strict=True):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / kind / split / f"{name}.png")
    (folder / "classes.txt").write_text(f"ground\n{HOSTILE}\nwater\n")
    return prepare("folder", folder, folder / "cache")


@pytest.fixture(scope="module")
def page(dataset) -> str:
    return render_sheet(dataset, survey_dataset(dataset, "train"))


def test_a_picture_is_the_image_beside_its_overlay(dataset, page):
    (address,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"[^>]*alt="h: ', page.split('id="rare"')[0])
    (example,) = [example for example in dataset.source("val") if example.name == "h"]
    height, width = example.label.shape
    factor = SIDE / max(height, width)
    rows, columns = (np.arange(round(side * factor)) for side in (height, width))
    places = np.ix_(*(((index + 0.5) / factor).astype(int) for index in (rows, columns)))
    image, label = example.image[places], example.label[places]
    with Image.open(io.BytesIO(base64.b64decode(address))) as file:
        picture = np.asarray(file).astype(int)
    assert picture.shape == (len(rows), 2 * len(columns), 3)
    drawn = np.concatenate([image, overlay(image, label, dataset.palette)], axis=1)
    assert np.abs(picture - drawn).mean() < 6  # JPEG, and other weights at the edges of enlarged pixels
    assert np.abs(picture[:, ::-1] - drawn).mean() > 12


def test_names_are_escaped(page):
    assert "<script" not in page
    assert "<strong>a&amp;amp;&lt;b&gt;</strong>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;" in page


def test_it_warns_of_repeated_images_and_shows_them(page):
    section = page.split('id="repeats"')[1].split("</section>")[0]
    assert "warning: 1 image of val is the same as images of train: twin = b" in section
    assert re.findall(r"<strong>(.*?)</strong>", section) == ["twin", "b"]


def test_a_caption_has_name_size_and_classes(dataset, page):
    (example,) = [example for example in dataset.source("val") if example.name == "g"]
    caption = page.split("<strong>g</strong>")[1].split("</figcaption>")[0].replace("&nbsp;", " ")
    height, width = example.label.shape
    assert f"val, {width}x{height}" in caption
    assert f"ground {100 * (example.label == 0).mean():.0f} %" in caption
    assert caption.index("ground") < caption.index("void")


def open_page(browser: Browser, file: Path, scheme="light", width=1100):
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    noted: list[str] = []
    opened.on("request", lambda request: noted.append(request.url.split(",")[0]))
    opened.on("console", lambda message: noted.append(message.text))
    opened.on("pageerror", lambda error: noted.append(str(error)))
    opened.on("dialog", lambda dialog: noted.append(dialog.message))
    opened.goto(file.as_uri())
    return opened, noted


def test_the_page_loads_itself_alone_and_shows_every_picture(browser, page, tmp_path):
    file = tmp_path / "sheet.html"
    file.write_text(page)
    opened, noted = open_page(browser, file)
    pictures = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(pictures) == page.count("<img") >= 6 + 3 + 2
    assert all(pictures)
    assert {url for url in noted if not url.startswith("data:image/")} == {file.as_uri()}
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_the_page(browser, page, tmp_path, scheme):
    file = tmp_path / "sheet.html"
    file.write_text(page)
    opened, _ = open_page(browser, file, scheme)
    found = Axe().run(opened).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    opened.close()


def test_the_page_fits_a_narrow_window(browser, page, tmp_path):
    file = tmp_path / "sheet.html"
    file.write_text(page)
    opened, _ = open_page(browser, file, width=320)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 320
    opened.close()


@pytest.fixture(scope="module")
def page_of_tasks(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "data")
    scenes = prepare("siftflow", folder / "data", folder / "cache")
    return render_sheet(scenes, survey_dataset(scenes, "train"))


def test_several_tasks_are_beside_each_other(page_of_tasks):
    (address,) = re.findall(
        r'<img src="data:image/jpeg;base64,([^"]+)"[^>]*alt="scene9: ', page_of_tasks.split('id="rare"')[0]
    )
    with Image.open(io.BytesIO(base64.b64decode(address))) as file:
        picture = np.asarray(file).astype(int)
    _, semantic, geometric = draw_scene(9)
    height, width = semantic.shape
    assert picture.shape == (round(height * SIDE / width), 3 * SIDE, 3)
    image, *overlays = np.split(picture, 3, axis=1)
    for task, colours, mask, number in ((0, palette(33), semantic, 22), (1, palette(3), geometric, 2)):
        rows, columns = (
            np.arange(0.5, side) * [height, width][axis] / side for axis, side in enumerate(image.shape[:2])
        )
        shown = mask[np.ix_(rows.astype(int), columns.astype(int))] == number  # the road
        shown &= np.roll(shown, 8, 0) & np.roll(shown, -8, 0) & np.roll(shown, 8, 1) & np.roll(shown, -8, 1)
        expected = (image[shown] + colours[number - 1]) / 2
        assert np.abs(overlays[task][shown] - expected).mean() < 6


def test_each_task_has_a_table_captions_and_rare_classes(page_of_tasks):
    classes = page_of_tasks.split('id="classes"')[1].split('id="images"')[0]
    assert re.findall(r"<h3[^>]*>(.*?)</h3>", classes) == ["Semantic task", "Geometric task"]
    assert classes.count("staircase</th>") == classes.count("vertical</th>") == 1
    caption = page_of_tasks.split("<strong>scene9</strong>")[1].split("</figcaption>")[0].replace("&nbsp;", " ")
    _, semantic, geometric = draw_scene(9)
    for task, mask, number, name in (("semantic", semantic, 22, "road"), ("geometric", geometric, 2, "horizontal")):
        own = caption.split(f"{task}: ")[1].split("<br>")[0]
        assert f"{name} {100 * (mask == number).mean():.0f} %" in own
    rare = page_of_tasks.split('id="rare"')[1]
    assert re.findall(r"<h3>(.*?)</h3>", rare)[:1] == ["semantic: building"]
    assert "<h3>geometric: vertical</h3>" in rare


def test_everyone_can_read_the_page_of_several_tasks(browser, page_of_tasks, tmp_path):
    file = tmp_path / "sheet.html"
    file.write_text(page_of_tasks)
    opened, _ = open_page(browser, file, width=320)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 320
    found = Axe().run(opened).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    opened.close()
