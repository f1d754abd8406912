"""The page of a run: its sections in one HTML file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill

# Modules of `dplq.report.sections`, in the order of the page; one that is absent is left out.
SECTIONS = (
    "numbers",
    "what_was_run",
    "confusion",
    "classes",
    "calibration",
    "roc",
    "training",
    "gallery",
    "features",
    "explanations",
)
STYLE = Path(__file__).with_name("templates") / "style.css"


def render_run(run: RunPage) -> str:
    """Return the page of a run as HTML.

    Raises:
        UserError: something that the page is made of is damaged.
    """
    results = run.results
    return fill(
        "page.html",
        title=f"{results.trainer} on {results.dataset}",
        style=STYLE.read_text("utf-8"),
        sections=list(sections(run)),
    )


def sections(run: RunPage) -> Iterator[Section]:
    """Yield the sections that a run has."""
    for name in SECTIONS:
        module = f"{__package__}.sections.{name}"
        if importlib.util.find_spec(module) is None:
            continue
        made = importlib.import_module(module).section(run)
        if made is not None:
            yield made
