"""What was run: data, method, settings, versions, device."""

from __future__ import annotations

from collections.abc import Iterator

from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill

CLASSES = {"all": "all", "base": "base (the first half)", "new": "new (the second half)"}


def section(run: RunPage) -> Section:
    """Return the section; every run has it."""
    body = fill("what_was_run.html", facts=list(facts(run)))
    return Section("What was run", "what-was-run", body)


def facts(run: RunPage) -> Iterator[tuple[str, str]]:
    """Yield names and values of what is known of a run."""
    results = run.results
    yield "Method", results.trainer
    yield "Dataset", results.dataset
    yield "Classes", CLASSES[results.subsample]
    yield "Images per class for training", str(results.shots) if results.shots > 0 else "all"
    yield "Tested", f"{results.split} split" + (f", {results.total:,} images" * bool(results.total))
    yield "Seed", str(results.seed)
