"""Paired comparison of trainers over datasets and seeds, as text."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from statistics import harmonic_mean
from typing import Any

from tabulate import tabulate

from dplq.errors import UserError, few, suggest
from dplq.evaluation.hits import decode_hits
from dplq.results.bootstrap import bootstrap_interval
from dplq.results.names import MARK, row_names
from dplq.results.runs import PAIRS, Run, Setting, Tested
from dplq.results.statistics import Comparison, average_ranks, compare

logger = logging.getLogger(__name__)

METRICS = ("base", "new", "H", *PAIRS["gen. H"], "gen. H", "all")
COMPOSITE = "composite"  # one name for all: which head is the best may differ between datasets
Place = tuple[Any, str, int | None, int]  # root, dataset, shots (None: zero-shot), seed
OfRuns = dict[str, dict[str, dict[Place, Tested | None]]]  # subset -> trainer -> place
Values = dict[str, dict[str, dict[Any, float]]]  # metric -> trainer -> (dataset, seed) -> accuracy
NOTE = (
    "difference: accuracy of the trainer minus that of {reference} in points, mean +- 95 % interval"
    " (Student's t) over the pairs: runs with the same output folder, dataset, shots and seed (a"
    " zero-shot run goes with every number of shots, another zero-shot one once); of a"
    " single pair [from, to] of a bootstrap over its test images, where both runs say which were"
    " right and no images share a group (such as a patient). p:"
    " two-sided, of the paired t-test and of Wilcoxon's signed-rank test; not corrected for several"
    " comparisons. Seeds of one dataset share its test images, so few datasets prove little about"
    " others."
)


def comparison(runs: Iterable[Run], reference: str) -> str:
    """Return the table of every trainer against one, and their average ranks.

    Args:
        runs: what `collect` returns.
        reference: name of a trainer, in any case, as `row_names` has it.

    Raises:
        UserError: the reference has no run, or there is nothing to compare it with.
    """
    runs = list(runs)
    values, tested = values_of(runs), _tested_of(runs)
    pairs = Pairs(runs)
    trainers = sorted({name for by_trainer in values.values() for name in by_trainer})
    chosen = next((name for name in trainers if name.lower() == reference.lower()), None)
    if chosen is None:
        raise UserError(f"no run of '{reference}' to compare with.{suggest(reference, trainers)}")
    rows = [
        [name, metric, *_cells(result, _interval(tested, metric, name, chosen))]
        for name in trainers
        for metric in METRICS
        if name != chosen and (result := compare(*pairs.of(values[metric], name, chosen)))
    ]
    pairs.warn()
    if not rows:
        raise UserError(
            f"no trainer has a run of the dataset, seed and number of shots of one of {chosen} "
            "below the same folder"
        )
    headings = ["trainer", "metric", "pairs", "difference", "p (t)", "p (Wilcoxon)"]
    table = tabulate(rows, headings, disable_numparse=True)
    return "\n".join([table, "", NOTE.format(reference=chosen), *_ranks(values, pairs)])


class Pairs:
    """Which runs of two trainers are pairs: of the same images, and each once.

    Args:
        runs: all that are compared.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        names = _names(runs)
        self._zero_shot = {names[run.setting] for run in runs if run.zero_shot}
        self._splits: dict[tuple[Any, ...], set[str]] = defaultdict(set)
        for run in runs:
            if run.split:
                name, setting = names[run.setting], run.setting
                key = (setting.root, run.dataset, setting.shots, run.seed)
                self._splits[self._place(name, key)].add(run.split)
        self._differ: dict[tuple[str, str], set[str]] = defaultdict(set)

    def of(
        self, by_trainer: Mapping[str, Mapping[Any, float]], *names: str
    ) -> list[dict[Any, float]]:
        """Return the accuracies of two trainers that can be paired, by their common keys.

        Two zero-shot trainers do not depend on the shots: there each seed of a dataset counts once,
        and a dataset once where all seeds are alike, as they are of one split.
        """
        found = [dict(by_trainer.get(name, {})) for name in names]
        for key in found[0].keys() & found[1].keys():
            if not self._are_alike(names, key):
                self._differ[names[0], names[1]].add(key[1])
                del found[0][key]
        if self._zero_shot.issuperset(names):
            found = [{(*key[:2], key[3]): v for key, v in own.items()} for own in found]
            if all(map(_are_of_one_seed, found)):
                found = [{key[:2]: value for key, value in own.items()} for own in found]
        return found

    def blocks(self, by_trainer: Mapping[str, Mapping[Any, float]]) -> dict[str, dict[Any, float]]:
        """Return the accuracies without the keys where trainers were tested on other images."""
        names = {
            key: [n for n, own in by_trainer.items() if key in own] for key in _keys(by_trainer)
        }
        alike = {key for key, those in names.items() if self._are_alike(those, key)}
        return {
            name: kept
            for name, own in by_trainer.items()
            if (kept := {key: value for key, value in own.items() if key in alike})
        }

    def _are_alike(self, names: Sequence[str], key: tuple[Any, ...]) -> bool:
        """Return whether the known splits of these trainers' runs have one in common."""
        known = [found for name in names if (found := self._splits.get(self._place(name, key)))]
        return not known or bool(set.intersection(*known))

    def _place(self, name: str, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a run is known by: zero-shot ones by no shots."""
        root, dataset, *shots, seed = key
        return (name, root, dataset, None if name in self._zero_shot else shots[0], seed)

    def warn(self) -> None:
        """Name the pairs that `of` has left out."""
        for (name, other), datasets in sorted(self._differ.items()):
            logger.warning(
                "%s and %s were tested on other images of %s (the splits of their data differ): "
                "these runs are not paired",
                *(name, other, few(sorted(datasets))),
            )


def _are_of_one_seed(own: Mapping[Any, float]) -> bool:
    """Return whether each dataset has one accuracy with all seeds, by (root, dataset, seed)."""
    by_dataset: dict[Any, set[float]] = defaultdict(set)
    for key, value in own.items():
        by_dataset[key[:2]].add(value)
    return all(len(values) == 1 for values in by_dataset.values())


def values_of(runs: Iterable[Run]) -> Values:
    """Return the accuracies by metric, name and pair; H for the seeds that have base and new.

    Raises:
        UserError: two runs have the same place.
    """
    runs = list(runs)
    values: Values = {metric: defaultdict(dict) for metric in METRICS}
    names = _names(runs)
    for run in runs:
        setting = run.setting
        key = (setting.root, run.dataset, setting.shots, run.seed)
        known = values[run.subset][names[setting]]
        if key in known:
            raise UserError(
                f"{names[setting]} has two runs of {run.dataset}, seed {run.seed} "
                f"({run.folder} is one): give the folders of one config"
            )
        known[key] = run.accuracy
    _repeat_zero_shot(values, {names[run.setting] for run in runs if run.zero_shot})
    for name, halves in PAIRS.items():
        both = [values[half] for half in halves]
        for trainer in both[0].keys() & both[1].keys():
            base, new = (half[trainer] for half in both)
            values[name][trainer] = {
                key: harmonic_mean([base[key], new[key]]) for key in base if key in new
            }
    return values


def _keys(by_trainer: Mapping[str, Mapping[Any, float]]) -> set[Any]:
    return {key for own in by_trainer.values() for key in own}


def _repeat_zero_shot(values: Values, zero_shot: Set[str]) -> None:
    """Add the runs of trainers without training images for the shots that other trainers have."""
    for by_trainer in values.values():
        keys = _keys(by_trainer)
        for name in zero_shot & by_trainer.keys():
            own = by_trainer[name]
            without_shots = {
                (root, dataset, seed): v for (root, dataset, _, seed), v in own.items()
            }
            for root, dataset, shots, seed in keys - own.keys():
                if (accuracy := without_shots.get((root, dataset, seed))) is not None:
                    own[root, dataset, shots, seed] = accuracy


def _names(runs: Iterable[Run]) -> dict[Setting, str]:
    """Return the name of every setting; one for all composites."""
    names = row_names(run.setting for run in runs)
    return {s: COMPOSITE if s.trainer.endswith(MARK) else name for s, name in names.items()}


def _tested_of(runs: Sequence[Run]) -> OfRuns:
    """Return which images were right, by subset and name, of each run with its place."""
    names = _names(runs)
    found: OfRuns = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        shots = None if run.zero_shot else run.setting.shots  # it goes with every number
        place = (run.setting.root, run.dataset, shots, run.seed)
        found[run.subset][names[run.setting]][place] = run.tested
    return found


def _interval(tested: OfRuns, metric: str, *names: str) -> tuple[float, float] | None:
    """Return the bootstrap interval of the only pair of two names; None of none or several."""
    parts = []
    for subset in PAIRS.get(metric, (metric,)):
        one, two = (tested.get(subset, {}).get(name, {}) for name in names)
        pairs = [(one[a], two[b]) for a in one for b in two if _is_pair(a, b)]
        if not pairs or (len(pairs) > 1 and any(pair != pairs[0] for pair in pairs)):
            return None
        first, second = pairs[0]
        if first is None or second is None or first[:2] != second[:2]:
            return None
        parts.append((decode_hits(first.hits, first.total), decode_hits(second.hits, first.total)))
    return bootstrap_interval(parts)


def _is_pair(one: Place, two: Place) -> bool:
    """Return whether two runs are of one dataset, seed and number of shots, None being any."""
    shots = one[2], two[2]
    return (*one[:2], one[3]) == (*two[:2], two[3]) and (None in shots or shots[0] == shots[1])


def _cells(result: Comparison, interval: tuple[float, float] | None) -> list[str]:
    if result.pairs == 1 and interval:
        low, high = interval
        return ["1", f"{result.difference:+.2f} [{low:+.2f}, {high:+.2f}]", "-", "-"]
    half = "-" if result.half is None else f"{result.half:.2f}"
    tests = ("-" if p is None else _p(p) for p in (result.t_test, result.wilcoxon))
    return [str(result.pairs), f"{result.difference:+.2f} +- {half}", *tests]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _ranks(values: Mapping[str, Mapping[str, Mapping[Any, float]]], pairs: Pairs) -> list[str]:
    """Return a line per metric with the average ranks, where they can be had."""
    lines = []
    for metric in (*PAIRS, "all"):
        ranks = average_ranks(pairs.blocks(values[metric]))
        if ranks is not None:
            listed = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.average.items())
            lines.append(
                f"Average rank in {metric} over {ranks.blocks} datasets, shots and seeds: "
                f"{listed}. "
                f"Critical difference at 5 % (Nemenyi): {ranks.critical_difference:.2f}; all alike "
                f"(Friedman): p {_p(ranks.friedman)}."
            )
    return lines
