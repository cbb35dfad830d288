"""The page in a real browser: what it loads, how it fits, and whether everyone can read it."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from drawn_reports import draw_report

from fcn_jax.inference.report.page import render_page


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page of one run, and that of two."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {"one": [draw_report()], "two": [draw_report(), draw_report("a/long/name/without/spaces" * 2)]}
    for name, reports in pages.items():
        (folder / f"{name}.html").write_text(render_page(reports))
    return folder


def open_page(browser, file, scheme="light", width=1100):
    """Open a page with all of its details, and note what it loads and says."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.noted = []
    page.on("request", lambda request: page.noted.append(request.url.split(",")[0]))
    page.on("console", lambda message: page.noted.append(message.text))
    page.on("pageerror", lambda error: page.noted.append(str(error)))
    page.on("dialog", lambda dialog: page.noted.append(dialog.message))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    return page


@pytest.mark.parametrize("name", ["one", "two"])
def test_it_loads_itself_alone_and_shows_every_picture(browser, files, name):
    file = files / f"{name}.html"
    with open_page(browser, file) as page:
        pictures = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(pictures) == {"one": 9, "two": 18}[name]
        assert all(pictures)
        assert {url for url in page.noted if not url.startswith("data:image/")} == {file.as_uri()}


@pytest.mark.parametrize(("name", "scheme"), [("one", "dark"), ("two", "light")])
def test_axe_finds_nothing(browser, files, name, scheme):
    with open_page(browser, files / f"{name}.html", scheme) as page:
        colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colours == "rgb(255, 255, 255)") == (scheme == "light")
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert len(results.response["passes"]) > 20


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_narrow_page_does_not_scroll_sideways(browser, files, name):
    with open_page(browser, files / f"{name}.html", width=320) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        tables = page.evaluate("[...document.querySelectorAll('table')].map(table => table.scrollWidth)")
        assert max(tables) > 320  # they scroll in their own boxes


def test_the_keyboard_leads_past_the_links_to_the_results(browser, files):
    with open_page(browser, files / "one.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_paper_shows_what_is_folded_and_no_links(browser, files):
    with open_page(browser, files / "two.html", "dark") as page:
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = false)")
        assert not page.get_by_text("Largest confusions").first.is_visible()
        page.emulate_media(media="print")
        assert page.get_by_text("Largest confusions").first.is_visible()
        assert not page.locator("nav").is_visible()
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
