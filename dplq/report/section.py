"""One part of a page: a heading and what is below it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        title: its heading, plain text.
        anchor: its id in the page: lower-case letters and hyphens.
        body: HTML, made by `dplq.report.templates`, which escapes all values.
    """

    title: str
    anchor: str
    body: Markup
