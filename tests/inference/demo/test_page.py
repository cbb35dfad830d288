"""The page of `fcn-jax demo` in a real browser. The tests share a server and a browser, and run in this order."""

import base64
import contextlib
import io
import json
import signal
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from fcn_jax.inference.segmenter import Segmenter

PALETTE = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]])
FILE = "#photograph input[type=file]"


def draw_photograph(seed: int, side: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def encode(photograph: np.ndarray) -> str:
    """A photograph as a PNG in base64, for a script of the page."""
    stream = io.BytesIO()
    Image.fromarray(photograph).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


# What the browser does when a file is dropped on an element.
DROP = """([target, data]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.querySelector(target).dispatchEvent(
      new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
COPY = """data => navigator.clipboard.write([new ClipboardItem({"image/png":
  new Blob([Uint8Array.from(atob(data), letter => letter.charCodeAt(0))], {type: "image/png"})})])"""

HAS_CLASSES = """names => {
  const found = [...document.querySelectorAll("#classes label")].map(label => label.innerText.trim());
  return JSON.stringify(found.sort()) === JSON.stringify(names);
}"""


class Visitor:
    """A visitor with a browser window of its own, who notes every request that the window makes."""

    def __init__(self, browser, url: str, **options):
        self.url, self.requests = url, []
        self.page = browser.new_context(**options).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector(FILE, state="attached")

    def give(self, photograph: np.ndarray | bytes, name: str = "photo.png") -> None:
        stream = io.BytesIO()
        if isinstance(photograph, np.ndarray):
            Image.fromarray(photograph).save(stream, "PNG")
        else:
            stream.write(photograph)
        self.page.set_input_files(FILE, {"name": name, "mimeType": "image/png", "buffer": stream.getvalue()})

    def see(self, before: str | None = None) -> tuple[str, np.ndarray]:
        """Wait until another picture than the one before is shown, and return its address and pixels."""
        source = self.page.wait_for_function(
            """before => {
              const i = document.querySelector("#picture img");
              return i && i.src !== before && i.complete && i.naturalWidth && i.src;
            }""",
            arg=before,
        ).json_value()
        with Image.open(io.BytesIO(self.page.request.get(source).body())) as image:
            return source, np.asarray(image).astype(float)


def describe_classes(class_map: np.ndarray) -> list[str]:
    return sorted(f"{('sky', 'sea', 'sand')[i]} {100 * (class_map == i).mean():.1f} %" for i in np.unique(class_map))


def assert_shows(seen: np.ndarray, photograph: np.ndarray, class_map: np.ndarray, opacity: float, shown: set[int]):
    """Each pixel is white, next to another class, or the photograph mixed with the colour of its class if shown."""
    merged = np.where(np.isin(class_map, list(shown)), class_map.astype(int), -1)
    border = np.zeros(class_map.shape, bool)
    border[:, :-1] |= merged[:, :-1] != merged[:, 1:]
    border[:-1] |= merged[:-1] != merged[1:]
    share = opacity * (merged >= 0)[..., None]
    expected = np.where(border[..., None], 255, (1 - share) * photograph + share * PALETTE[class_map])
    assert np.abs(seen - expected).max() <= 0.5 + 1e-4


@pytest.fixture(scope="module")
def segment(run_dir):
    return Segmenter.from_run(run_dir)


@pytest.fixture(scope="module")
def visitor(browser, server):  # without a browser no server is started
    return Visitor(browser, server.url, viewport={"width": 1200, "height": 900})


def test_the_page_says_what_the_network_is(visitor):
    text = visitor.page.inner_text("body")
    assert "fcn8s on resnet18, trained on folder" in text
    assert "3 classes, step 1, not scored." in text
    assert visitor.page.title() == "fcn8s on resnet18, trained on folder"


def test_a_photograph_gets_its_classes(visitor, server, segment):
    photograph = draw_photograph(1)
    class_map = segment(photograph)
    assert len(np.unique(class_map)) > 1
    visitor.give(photograph)
    _, seen = visitor.see()
    assert_shows(seen, photograph, class_map, 0.5, {1, 2})
    names = visitor.page.locator("#classes label").all_inner_texts()
    assert sorted(names) == describe_classes(class_map)
    assert server.count("computed") == 1


def test_opacity_and_classes_are_drawn_without_the_network(visitor, server, segment):
    photograph = draw_photograph(1)
    class_map = segment(photograph)
    source, _ = visitor.see()
    visitor.page.focus("#opacity input[type=range]")
    visitor.page.keyboard.press("End")
    source, seen = visitor.see(source)
    assert_shows(seen, photograph, class_map, 1.0, {1, 2})
    off = int(max(set(np.unique(class_map)) - {0}, key=lambda index: (class_map == index).sum()))
    visitor.page.locator("#classes label", has_text=("sky", "sea", "sand")[off]).click()
    source, seen = visitor.see(source)
    assert_shows(seen, photograph, class_map, 1.0, {1, 2} - {off})
    visitor.page.focus("#opacity input[type=range]")
    visitor.page.keyboard.press("Home")
    source, seen = visitor.see(source)
    assert_shows(seen, photograph, class_map, 0.0, set())
    assert server.count("computed") == 1


def test_the_squares_before_the_names_have_the_colours_of_the_classes(visitor):
    for label in visitor.page.locator("#classes label").all():
        index = ("sky", "sea", "sand").index(label.inner_text().split()[0])
        colour = label.locator("span").evaluate("span => getComputedStyle(span, '::before').backgroundColor")
        assert colour == f"rgb({', '.join(map(str, PALETTE[index]))})"


def test_the_class_map_is_a_palette_png_of_the_photographs_size(visitor, segment):
    with visitor.page.expect_download() as download:
        visitor.page.click("#class-map")
    assert download.value.suggested_filename == "photo.png"
    with Image.open(download.value.path()) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), segment(draw_photograph(1)))
        assert image.getpalette()[:9] == PALETTE.ravel().tolist()


def test_a_bad_file_is_answered_in_words(visitor, server):
    before = server.count("computed")
    visitor.give(b"no image", "page.png")
    visitor.page.wait_for_selector("#message p")
    text = visitor.page.inner_text("#message")
    assert text.startswith("page.png cannot be read as an image")
    assert "Traceback" not in visitor.page.inner_text("body")
    assert visitor.page.locator("#picture img").count() == 0
    assert visitor.page.locator("#classes label").count() == 0
    assert server.count("computed") == before


def test_two_visitors_at_once_see_their_own_photographs(visitor, browser, server, segment):
    other = Visitor(browser, server.url)
    first, second = draw_photograph(2), draw_photograph(3)
    visitor.give(first)
    other.give(second)
    for window, photograph in ((other, second), (visitor, first)):
        window.page.focus("#opacity input[type=range]")
        source, _ = window.see()
        window.page.keyboard.press("End")
        _, seen = window.see(source)
        assert_shows(seen, photograph, segment(photograph), 1.0, {1, 2})
    assert visitor.page.locator("#message p").count() == 0
    visitor.requests += other.requests


def test_photographs_are_dropped_and_pasted(browser, server, segment):
    other = Visitor(browser, server.url, permissions=["clipboard-read", "clipboard-write"])
    before = None
    for seed, target in ((4, "#photograph button"), (5, "#photograph img")):  # the second one in place of the first
        photograph = draw_photograph(seed)
        other.page.evaluate(DROP, [target, encode(photograph)])
        before, seen = other.see(before)
        assert_shows(seen, photograph, segment(photograph), 0.5, {1, 2})
    for seed, paste in (
        (6, lambda: other.page.keyboard.press("Control+v")),
        (7, lambda: other.page.click("#photograph button[aria-label='Paste from clipboard']")),
    ):
        photograph = draw_photograph(seed)
        other.page.bring_to_front()
        other.page.evaluate(COPY, encode(photograph))
        paste()
        other.page.wait_for_function(HAS_CLASSES, arg=describe_classes(segment(photograph)))


def test_the_opacity_that_is_chosen_meanwhile_is_the_one_that_is_drawn(browser, server, segment):
    other = Visitor(browser, server.url)
    photograph = draw_photograph(8, 500)  # for its size the network compiles
    before = server.count("computed")
    other.give(photograph)
    while server.count("computed") == before:
        other.page.wait_for_timeout(5)
    other.page.focus("#opacity input[type=range]")
    other.page.keyboard.press("End")
    source, seen = other.see()
    class_map = segment(photograph)
    with contextlib.suppress(AssertionError):  # it may have been drawn with the former opacity first
        assert_shows(seen, photograph, class_map, 1.0, {1, 2})
        return
    _, seen = other.see(source)
    assert_shows(seen, photograph, class_map, 1.0, {1, 2})


def test_a_narrow_page_does_not_scroll_sideways(visitor):
    visitor.page.set_viewport_size({"width": 400, "height": 800})
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == 400
    visitor.page.set_viewport_size({"width": 1200, "height": 900})


def test_an_image_of_the_val_split_is_offered(visitor, segment, run_dir):
    source, _ = visitor.see()
    visitor.page.locator(".gallery button, .gallery-item").first.click()
    _, seen = visitor.see(source)
    with Image.open(run_dir.parent / "data" / "images" / "val" / "one.png") as image:
        assert seen.shape == (image.height, image.width, 3)


def test_nothing_is_asked_of_another_host(visitor, server):
    assert len(visitor.requests) > 50
    outside = [url for url in visitor.requests if not url.startswith((server.url, "data:", "blob:"))]
    assert outside == []
    assert server.count("outside:") == 0
    with urllib.request.urlopen(server.url) as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    stranger = urllib.request.Request(server.url, headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(stranger)


def test_a_file_of_this_machine_that_nobody_uploaded_is_not_read(visitor, server, tmp_path):
    """Gradio would take the path from the request, and show the file to whoever asks."""
    private = tmp_path / "private.png"
    Image.fromarray(draw_photograph(9)).save(private)
    before = server.count("computed")
    assert "Traceback" not in server.log.read_text()  # Gradio prints one for what it refuses
    for number in range(8):
        file = {"path": str(private), "meta": {"_type": "gradio.FileData"}}
        asked = json.dumps({"data": [file, 0.5, None], "fn_index": number, "session_hash": "stranger"}).encode()
        request = urllib.request.Request(
            f"{server.url}gradio_api/run/predict", asked, {"Content-Type": "application/json"}
        )
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request) as answer:
            assert b"/file=" not in answer.read()
    assert server.count("computed") == before
    assert not [file for file in server.log.parent.rglob("*.png") if file.read_bytes() == private.read_bytes()]


def test_ctrl_c_ends_it_and_nothing_is_left(visitor, server):
    assert [folder.name.startswith("fcn_jax-demo-") for folder in server.log.parent.iterdir()].count(True) == 1
    before = len(server.log.read_text())
    assert server.end(signal.SIGINT) == 130
    log = server.log.read_text()[before:]
    assert log.endswith("fcn-jax: stopped\n")
    assert "Traceback" not in log
    assert list(server.log.parent.iterdir()) == [server.log]
