"""The templates of the pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

FIRST_PAGE = "index.html"


def open_templates() -> Environment:
    """Return the templates: text is escaped, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("dbksvd.report.pages"), autoescape=True, undefined=StrictUndefined
    )
