"""The page of a run: its sections in one HTML file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from dplq import __version__
from dplq.report.numbers import counted
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
    title = f"{results.trainer} on {results.dataset}"
    return assemble(title, lead(run), sections(run))


def lead(run: RunPage) -> str:
    """Return the line below the title."""
    results = run.results
    classes = {"all": "all classes", "base": "base classes", "new": "new classes"}
    said = [f"{results.split} split", classes[results.subsample]]
    said += [counted(results.total, "image")] if results.total else []
    said += [f"seed {results.seed}"] if results.seed >= 0 else []
    return " \N{MIDDLE DOT} ".join(said)


def assemble(title: str, lead: str, sections: Iterable[Section]) -> str:
    """Return a page as HTML: one file that needs nothing else.

    Args:
        title: of the page, plain text.
        lead: the line below it, plain text.
        sections: in their order.
    """
    page = fill(
        "page.html",
        title=title,
        lead=lead,
        style=STYLE.read_text("utf-8"),
        sections=list(sections),
        version=__version__,
    )
    return str(page)  # a `Markup` would escape what is joined to it


def sections(run: RunPage) -> Iterator[Section]:
    """Yield the sections that a run has."""
    for name in SECTIONS:
        module = f"{__package__}.sections.{name}"
        if importlib.util.find_spec(module) is None:
            continue
        made = importlib.import_module(module).section(run)
        if made is not None:
            yield made
