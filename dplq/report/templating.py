"""Templates of the pages: Jinja2, every value escaped."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dplq.errors import printable


@functools.cache
def environment() -> Environment:
    """Return the templates in ``dplq/report/templates``."""
    made = Environment(
        loader=PackageLoader("dplq.report"),
        autoescape=True,  # whatever the file's name
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["printable"] = lambda value: printable(str(value))
    return made


def fill(template: str, **values: Any) -> Markup:
    """Return a template as HTML.

    Args:
        template: file name in ``dplq/report/templates``.
        **values: escaped where they are no `Markup`.
    """
    return Markup(environment().get_template(template).render(**values))
