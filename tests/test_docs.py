"""The documentation: its links and paths lead somewhere, and its pictures are what its scripts draw."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "experiments/**/*.md")
    for page in PROJECT.glob(pattern)
)  # fmt: skip
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
NAMED_PATH = re.compile(r"(?<![\w./-])(?:fcn_jax|tests|benchmarks|experiments|docs)/[\w./-]*\w(?![\w*<{-])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    lost = [link for link in LINK.findall(FENCED.sub("", text)) if not leads_somewhere(page, link)]
    lost += [path for path in NAMED_PATH.findall(text) if not (PROJECT / path).exists()]
    assert lost == []


def leads_somewhere(page: Path, link: str) -> bool:
    """Return whether a link of a page leads to a file, or to a heading of a page; those to the web are not followed."""
    if re.match(r"https?:", link):
        return True
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", target.read_text()), re.MULTILINE) if heading else []
    return not heading or heading in map(to_anchor, headings)


def to_anchor(heading: str) -> str:
    """Return the name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two: `three`\n```\n# no heading\n```\n")
    assert leads_somewhere(page, "#one-two-three")
    assert leads_somewhere(page, "page.md#one-two-three")
    assert not leads_somewhere(page, "#no-heading")
    assert not leads_somewhere(page, "other.md")
    assert NAMED_PATH.findall("`fcn_jax/fcn.py`, tests/data/. benchmarks/*.py docs/<name>") == [
        "fcn_jax/fcn.py",
        "tests/data",
    ]


@pytest.mark.slow
def test_the_drawings_of_upsampling_are_what_the_script_draws(tmp_path):
    """The same bytes, as far as matplotlib is the same: its releases write paths and fonts differently."""
    matplotlib = pytest.importorskip("matplotlib")
    kept = sorted((PROJECT / "docs" / "images").glob("*.svg"))
    drawn_by = {re.search(r"Matplotlib v([^,]+)", file.read_text())[1] for file in kept}
    if drawn_by != {matplotlib.__version__}:
        pytest.skip(f"docs/images was drawn by matplotlib {drawn_by}, here is {matplotlib.__version__}")
    script = shutil.copy(PROJECT / "docs" / "upsampling.py", tmp_path)
    env = os.environ | {"PYTHONPATH": str(PROJECT), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, script], env=env, check=True)
    assert [file.name for file in kept] == sorted(file.name for file in (tmp_path / "images").iterdir())
    for file in kept:
        assert file.read_bytes() == (tmp_path / "images" / file.name).read_bytes(), file.name
