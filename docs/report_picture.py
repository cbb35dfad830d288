"""Take the picture of a report: `python docs/report_picture.py REPORT.html` writes docs/images/report.png.

    fcn-jax train fcn8s --run-dir runs/shapes && fcn-jax report runs/shapes
    python docs/report_picture.py runs/shapes/report.html

The picture has the top of the page, with the scores, and its best example, as Chromium shows them. It needs playwright
and Chromium (`chromium` on the PATH).
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "images" / "report.png"
WIDTH = 1100  # CSS pixels
EXAMPLES = 1
# Rows of the page to show: from its top to the end of the scores, and from the heading of the examples.
FIND_ROWS = """count => {
  const box = element => element.getBoundingClientRect();
  const [curves, examples] = ["curves", "examples"].map(id => box(document.getElementById(id).closest("section")));
  return [[0, curves.top], [examples.top, box(document.querySelectorAll(".example")[count - 1]).bottom + 24]];
}"""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def main() -> None:
    """Read the arguments and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="page that `fcn-jax report` wrote")
    parser.add_argument("--out", type=Path, default=OUT, help="PNG file to write")
    options = parser.parse_args()
    take_picture(options.report, options.out)


def take_picture(report: Path, out: Path) -> None:
    """Write the parts of a page, one below the other,."""
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        rows = page.evaluate(FIND_ROWS, EXAMPLES)
        shown = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
        browser.close()
    parts = [shown.crop((0, round(top), WIDTH, round(bottom))) for top, bottom in rows]
    picture = Image.new("RGB", (WIDTH, sum(part.height for part in parts)))
    for index, part in enumerate(parts):
        picture.paste(part, (0, sum(before.height for before in parts[:index])))
    picture.save(out, optimize=True)


if __name__ == "__main__":
    main()
