"""Templates, and pictures inside of pages."""

import urllib.request

import jinja2
import pytest

from fcn_jax.inference.html_page import load_template, make_data_uri


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """A package with a template."""
    templates = tmp_path / "own_pages" / "templates"
    templates.mkdir(parents=True)
    (tmp_path / "own_pages" / "__init__.py").touch()
    (templates / "page.html.jinja").write_text("{% if True %}\n  <p>{{ name | loud }}{{ other }}</p>\n{% endif %}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_pages"


def test_values_are_escaped_and_unknown_names_refused(package):
    template = load_template(package, "page.html.jinja", {"loud": str.upper})
    assert template.render(name="<b>", other=2) == "  <p>&lt;B&gt;2</p>\n"
    with pytest.raises(jinja2.UndefinedError, match="'other' is undefined"):
        template.render(name="x")


def test_an_address_holds_the_picture():
    content = bytes(range(256))
    with urllib.request.urlopen(make_data_uri(content, "png")) as response:
        assert (response.read(), response.headers["Content-Type"]) == (content, "image/png")
