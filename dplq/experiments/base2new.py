"""Base-to-new generalisation: train on the base classes, test on base and new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dplq.experiments.plan import Plan, Run
from dplq.experiments.series import Series

PARTS = ("train_base", "test_new", "test_all")


def base2new(
    dataset: str,
    trainer: str,
    config: str,
    *,
    seeds: Iterable[int],
    out: Path,
    shots: int = 16,
    data: Path | None = None,
    options: Iterable[tuple[str, str]] = (),
    generalised: bool = False,
) -> Plan:
    """Return the plan of a trainer on a dataset; the arguments are those of `Series`.

    Args:
        dataset: a file of ``configs/datasets``, without its ending.
        trainer: a folder of ``configs/trainers``.
        config: a file in it, without its ending.
        seeds: of the runs.
        out: folder of all results.
        shots: training images per class; -1 for all.
        data: folder of the datasets; None for a built-in one.
        options: config keys and values.
        generalised: test among all class names together, too.
    """
    unique = tuple(dict.fromkeys(seeds))
    series = Series(dataset, trainer, config, unique, out, shots, data, tuple(options))
    return base_to_new(series, generalised=generalised)


def base_to_new(series: Series, *, generalised: bool = False) -> Plan:
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
