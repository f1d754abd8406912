"""Averages over seeds: pairs of base and new runs become rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean, harmonic_mean, pstdev
from typing import Any

from dplq.errors import few
from dplq.io.runs.settings import differing
from dplq.results.runs import COSTS, PAIRS, SUBSETS, Run, Setting, one_each
from dplq.results.statistics import t_quantile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stat:
    """Mean over `count` seeds and the population standard deviation (None for other averages)."""

    mean: float
    std: float | None
    count: int

    def spread(self, ci95: bool) -> float | None:
        """Return the standard deviation, or with `ci95` half of Student's 95 % interval.

        One seed has neither: None.
        """
        if self.std is None or self.count < 2:
            return None
        if not ci95:
            return self.std
        return t_quantile(self.count - 1) * self.std / math.sqrt(self.count - 1)


@dataclass(frozen=True)
class Row:
    """One row of the table: a dataset, or the average over the datasets of a setting.

    Attributes:
        setting: folder of the runs, trainer, config folder and shots.
        dataset: name of the dataset, or for example "average of 3".
        seeds: the sorted seeds of every subset present.
        stats: any of "base", "new", "all", "gen. base", "gen. new", "H" and "gen. H".
        rounded: True when a run was read from a log.
        costs: any of `COSTS`, mean over the seeds, of the runs that trained.
        devices: devices of those runs.
        any_classes: the trainer can name classes that it was not trained on.
        cached: seeds of the runs that took frozen features from the cache, and are not timed.
        values: what `stats` are of, by seed, or in an average by dataset and seed.
        problems: of its trainings, with their seeds.
        parts: weights of the datasets in an average, as in `dplq.results.rendering.Line`.
        splits: hashes of the splits of its data, those that are known; none in an average.
    """

    setting: Setting
    dataset: str
    seeds: Mapping[str, tuple[int, ...]]
    stats: Mapping[str, Stat]
    rounded: bool
    costs: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    any_classes: bool = True
    cached: tuple[int, ...] = ()
    values: Mapping[str, Mapping[Any, float]] = field(default_factory=dict)
    problems: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts: Mapping[str, Mapping[Any, Mapping[str, Fraction]]] = field(default_factory=dict)
    splits: frozenset[str] = frozenset()


def summarise(runs: Iterable[Run], *, keep_order: bool = False) -> list[Row]:
    """Pair base and new runs by seed and average over seeds (docs/protocol.md).

    The mean of H is the harmonic mean of the averaged base and new accuracy, over the seeds that
    have both; its standard deviation is that of the per-seed harmonic means. Missing runs and
    unequal seed sets are reported as warnings.

    Args:
        runs: what `collect` returns.
        keep_order: settings in the order of their first run; else sorted.

    Returns:
        One row per setting and dataset; after the rows of a setting with several datasets, their
        average (left out, with a warning, where a dataset lacks a value).
    """
    rows = []
    table = _by_setting(runs)
    for setting in table if keep_order else sorted(table):
        datasets = table[setting]
        block = [
            _row(setting, dataset, datasets[dataset]) for dataset in sorted(datasets, key=str.lower)
        ]
        rows += block
        if len(block) > 1:
            average = _average(block)
            rows += [average] if average.stats else []
    return rows


def _by_setting(runs: Iterable[Run]) -> dict[Setting, dict[str, dict[str, dict[int, Run]]]]:
    """Return the runs as [setting][dataset][subset][seed]."""
    table: dict[Setting, dict[str, dict[str, dict[int, Run]]]] = {}
    for run in one_each(runs, "the same run twice").values():
        subsets = table.setdefault(run.setting, {}).setdefault(run.dataset, {})
        subsets.setdefault(run.subset, {})[run.seed] = run
    return table


def paired_stats(
    values: Mapping[str, Mapping[Any, float]],
) -> tuple[dict[str, Stat], dict[str, Mapping[Any, float]]]:
    """Return mean and spread of values by subset and seed, and the values; both also of `PAIRS`."""
    found = dict(values)
    stats = {subset: stat(of_seeds.values()) for subset, of_seeds in values.items()}
    for name, halves in PAIRS.items():
        base, new = (values.get(half, {}) for half in halves)
        pairs = {seed: (base[seed], new[seed]) for seed in base if seed in new}
        if pairs:
            found[name] = {seed: harmonic_mean(pair) for seed, pair in pairs.items()}
            per_seed = stat(found[name].values())
            mean = harmonic_mean([fmean(column) for column in zip(*pairs.values(), strict=True)])
            stats[name] = Stat(mean, per_seed.std, per_seed.count)
    return stats, found


def _row(setting: Setting, dataset: str, subsets: Mapping[str, Mapping[int, Run]]) -> Row:
    """Average one dataset of a setting over its seeds."""
    accuracies = {
        subset: {seed: runs[seed].accuracy for seed in sorted(runs)}
        for subset, runs in subsets.items()
    }
    stats, values = paired_stats(accuracies)
    any_classes = all(run.any_classes for runs in subsets.values() for run in runs.values())
    if any_classes:
        _warn_unpaired(dataset, subsets)
    for of_seeds in subsets.values():
        _warn_unlike(setting, [of_seeds[seed] for seed in sorted(of_seeds)])
    trained = [run for subset in ("base", "all") for run in subsets.get(subset, {}).values()]
    return Row(
        setting=setting,
        dataset=dataset,
        seeds={subset: tuple(of_seeds) for subset, of_seeds in accuracies.items()},
        stats=stats,
        rounded=any(run.rounded for runs in subsets.values() for run in runs.values()),
        costs=_mean_costs(trained),
        devices=tuple(sorted({run.device for run in trained if run.device})),
        any_classes=any_classes,
        cached=tuple(sorted({run.seed for run in trained if run.cached})),
        values=values,
        problems=_problems(trained),
        splits=frozenset(run.split for of in subsets.values() for run in of.values() if run.split),
    )


def _problems(runs: Sequence[Run]) -> dict[str, tuple[int, ...]]:
    """Return the seeds of the runs whose training has a problem, by problem."""
    found = sorted({(run.problem, run.seed) for run in runs if run.problem})
    return {name: tuple(seed for other, seed in found if other == name) for name, _ in found}


def _mean_costs(runs: Sequence[Run]) -> dict[str, float]:
    """Average each cost over the runs that report it."""
    known = {name: [run.costs[name] for run in runs if name in run.costs] for name in COSTS}
    return {name: fmean(values) for name, values in known.items() if values}


def stat(values: Iterable[float]) -> Stat:
    """Return mean and population standard deviation of the values, at least one."""
    values = list(values)
    return Stat(fmean(values), pstdev(values), len(values))


def _warn_unpaired(dataset: str, subsets: Mapping[str, Mapping[int, Run]]) -> None:
    """Warn of base runs without a new run of the same seed, and the reverse."""
    for have, lack, swap in (
        ("base", "new", ("/train_base/", "/test_new/")),
        ("new", "base", ("/test_new/", "/train_base/")),
    ):
        for seed, run in sorted(subsets.get(have, {}).items()):
            if seed in subsets.get(lack, {}):
                continue
            folder = run.folder.as_posix()
            expected = folder.replace(*swap)
            where = f" in {expected}" if expected != folder else f" to go with {folder}"
            logger.warning(
                "%s, seed %d: no finished run on the %s classes%s; H leaves this seed out",
                *(dataset, seed, lack, where),
            )


def _warn_unlike(setting: Setting, runs: Sequence[Run]) -> None:
    """Warn of runs of one row, in the order of their seeds, that differ in more than the seed."""
    splits = {run.split for run in runs} - {""}
    configs = [run.config for run in runs if run.config]
    keys = differing(configs) if configs else []
    for what in ("the split of their data",) * (len(splits) > 1) + (few(keys),) * bool(keys):
        seeds = " ".join(str(run.seed) for run in runs)
        logger.warning(
            "%s, %s, %s: seeds %s differ in %s, and are averaged all the same: runs of other data "
            "or settings belong in other folders",
            *(setting.trainer, setting.config, runs[0].dataset, seeds, what),
        )


def _average(block: Sequence[Row]) -> Row:
    """Return the mean over datasets; H is that of the averaged base and new accuracy."""
    setting = block[0].setting
    label = f"{setting.trainer}, {setting.config}, {setting.shots} shots"
    stats = {}
    for subset in SUBSETS:
        lacking = [row.dataset for row in block if subset not in row.stats]
        if not lacking:
            stats[subset] = Stat(fmean(row.stats[subset].mean for row in block), None, len(block))
        elif len(lacking) < len(block):
            logger.warning(
                "%s: no average of '%s', which lacks %s", label, subset, ", ".join(lacking)
            )
    for name, halves in PAIRS.items():
        if all(half in stats for half in halves):
            mean = harmonic_mean([stats[half].mean for half in halves])
            stats[name] = Stat(mean, None, len(block))
    seed_sets = {seeds for row in block for seeds in row.seeds.values()}
    if stats and len(seed_sets) > 1:
        lists = " / ".join(" ".join(map(str, seeds)) for seeds in sorted(seed_sets))
        logger.warning("%s: the average mixes different seeds (%s)", label, lists)
    weights = {row.dataset: Fraction(1, len(block)) for row in block}
    return Row(
        setting=setting,
        dataset=f"average of {len(block)}",
        seeds=block[0].seeds if len(seed_sets) == 1 else {},
        stats=stats,
        rounded=any(row.rounded for row in block),
        any_classes=block[0].any_classes,
        values={name: _by_dataset_and_seed(block, name) for name in stats},
        parts={name: {None: weights} for name in stats if name in SUBSETS},
    )


def _by_dataset_and_seed(block: Sequence[Row], name: str) -> dict[tuple[str, Any], float]:
    """Return the values of a column; of H none where base and new runs share no seed."""
    return {(row.dataset, s): v for row in block for s, v in row.values.get(name, {}).items()}
