"""Base-to-new generalisation: train on the base classes, test on base and new ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dplq.experiments.plan import Plan, Run
from dplq.experiments.series import Series

PARTS = ("train_base", "test_new", "test_all")


def base2new(series: Series, *, generalised: bool = False) -> Plan:
    """Return the plan of ``scripts/base2new.sh`` for a series.

    Args:
        series: its runs.
        generalised: test among all class names together, too.
    """
    folders = [series.out / "base2new" / part / series.place for part in PARTS]
    if not series.names_any_class:
        del folders[1:]
    return Plan(list(_runs(series, folders, generalised)), folders, notes=series.notes)


def _runs(series: Series, folders: list[Path], generalised: bool) -> Iterator[Run]:
    train, *tests = folders if generalised else folders[:2]
    for seed in series.seeds:
        trained = series.train(train, seed, "base")
        yield trained
        for folder, classes in zip(tests, ("new", "all"), strict=False):
            yield series.test(folder, trained, classes)
