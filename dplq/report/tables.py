"""Tables of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from dplq.report.templating import fill


def table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[object]], labels: int = 1
) -> Markup:
    """Return a table as HTML; the first cell of each row is its heading.

    Args:
        caption: what it shows, plain text.
        headings: of the columns.
        rows: cells, shown by `str`.
        labels: number of columns at the left that hold text; the others hold numbers.
    """
    return fill("table.html", caption=caption, headings=headings, rows=list(rows), labels=labels)
