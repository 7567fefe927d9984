"""Pages from templates, with one style, that need nothing from outside."""

from importlib.resources import files
from typing import Any

from pixelwise.optional import optional_module


def page_from(template: str, values: dict[str, Any]) -> str:
    """Return a page as HTML: a template of this folder, filled in.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    jinja2 = optional_module("jinja2")
    folder = files("pixelwise.report")
    text = folder.joinpath(template).read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    return page.render(style=folder.joinpath("style.css").read_text(encoding="utf-8"), **values)
