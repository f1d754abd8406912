"""What was run: data, method, settings, versions, device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from dplq.evaluation.fit import fit_problem
from dplq.io.validation.local_paths import PATH_KEYS, without_folders
from dplq.report.numbers import duration
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.tables import table
from dplq.report.templating import fill

CLASSES = {"all": "all", "base": "base (the first half)", "new": "new (the second half)"}


def section(run: RunPage) -> Section:
    """Return the section; every run has it."""
    known = [(name, value) for name, value in facts(run) if value]
    body = fill("what_was_run.html", facts=known, problem=_problem(run), parts=list(parts(run)))
    return Section("What was run", "what-was-run", body)


def facts(run: RunPage) -> Iterator[tuple[str, str]]:
    """Yield names and values of what is known of a run; empty values are not known."""
    results, config = run.results, run.config
    yield "Trainer", results.trainer
    yield "CLIP", _text(config, "MODEL", "BACKBONE", "NAME")
    yield "Domain encoder", _text(config, "DOMAIN", "ENCODER") if _has_domain(run) else ""
    yield "Dataset", results.dataset
    yield "Classes", CLASSES[results.subsample]
    yield "Training images per class", _shots(run)
    yield "Tested images", f"{results.total:,}, {results.split} split" if results.total else ""
    yield "Seed", str(results.seed) if results.seed >= 0 else ""
    yield "Split (hash)", results.split_hash or ""
    yield "Learnable parameters", _count(results.learnable_parameters)
    yield "Epochs", _count(results.epochs)
    yield "Checkpoint", run.checkpoint.name if run.checkpoint else ""
    yield "Precision", results.precision or ""
    yield "Device", results.device or ""
    cached = ", frozen features from the cache" if results.seconds.cached_batches else ""
    yield "Training time", duration(results.seconds.train) + cached if results.seconds.train else ""
    yield "Test time", duration(results.seconds.test) if results.seconds.test else ""
    memory = results.peak_memory_mib
    yield "Peak memory", f"{memory:,.0f} MiB" if memory else ""


def parts(run: RunPage) -> Iterator[tuple[str, Markup]]:
    """Yield title and content of what is folded away at first."""
    header = run.header
    if header is not None:
        settings = [(key, _shown(value)) for key, value in sorted(header.settings.items())]
        yield (
            f"Settings of the method ({len(settings)})",
            table("As the checkpoint has them.", ("setting", "value"), settings, labels=2),
        )
        names = [(str(i + 1), name) for i, name in enumerate(header.classnames)]
        yield (
            f"Class names in the prompts ({len(names)})",
            table("Of the training, in their order.", ("class", "name"), names, labels=2),
        )
    if run.options.changed is not None:
        known = run.options.changed
        if not run.options.images:
            known = {key: value for key, value in known.items() if key not in PATH_KEYS}
            known = without_folders(known)[0]
        changed = [(key, _shown(value)) for key, value in known.items()]
        yield (
            f"Config keys that differ from their defaults ({len(changed)})",
            table("docs/settings.md explains the keys.", ("key", "value"), changed, labels=2),
        )
    if run.results.versions:
        versions = sorted(run.results.versions.items())
        yield "Versions", table("Of the run.", ("package", "version"), versions, labels=2)


def _problem(run: RunPage) -> str:
    """Return a sentence on a training that did not fit; mostly empty."""
    trained = run.results.train_accuracy
    problem = fit_problem(trained.start, trained.end) if trained else ""
    if not trained or not problem:
        return ""
    return (
        f"On its own training images the training {problem}: {trained.end:.1f} % of them are right "
        "after it. Read the numbers with that in mind."
    )


def _shots(run: RunPage) -> str:
    if run.results.zero_shot:
        return "none (zero-shot)"
    return str(run.results.shots) if run.results.shots > 0 else "all"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _has_domain(run: RunPage) -> bool:
    header = run.header
    return header is not None and header.domain is not None


def _text(config: Any, *keys: str) -> str:
    """Return a value of a nested config as text; "" where there is none."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return "" if config is None else _shown(config)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
