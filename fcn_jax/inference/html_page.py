"""HTML pages that need nothing outside of them: their templates, and pictures inside of them."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import jinja2


def load_template(package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> jinja2.Template:
    """Load a template whose values are escaped, and in which an unknown name is an error.

    Args:
        package: the package whose folder `templates` has it.
        name: its file name.
        filters: functions that the template may apply to values; None: only Jinja's own.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(name)


def make_data_uri(content: bytes, kind: str) -> str:
    """Return an address that holds a picture.

    Args:
        content: the file of the picture.
        kind: its format, as jpeg or png.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
