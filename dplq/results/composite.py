"""Composite rows: the best head on base classes, with zero-shot CLIP on new ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from dplq.errors import UserError
from dplq.results.runs import Run, Setting

MARK = "(composite)"
NOTE = (
    f"{MARK}: two models, paired by seed: a head that only knows its own classes on base, zero-shot"
    " CLIP on new, each the one of best mean accuracy in these very numbers. They cannot choose"
    " among all names."
)
Seeds = Mapping[int, Run]


def composites(runs: Iterable[Run]) -> list[Run]:
    """Return the base and new runs of a composite for every folder, dataset and shots.

    Args:
        runs: what `collect` returns.

    Raises:
        UserError: nowhere are both a head's base runs and zero-shot runs on new classes.
    """
    heads: Any = defaultdict(lambda: defaultdict(dict))
    zero_shot: Any = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        place = (run.setting.root, run.dataset, run.setting.shots)
        if run.subset == "base" and not run.any_classes:
            heads[place][run.setting][run.seed] = run
        elif run.subset == "new" and run.zero_shot:
            zero_shot[place][run.setting][run.seed] = run
    found = [
        run
        for place in heads
        if place in zero_shot
        for run in _composite(_best(heads[place]), _best(zero_shot[place]))
    ]
    if not found:
        raise UserError(
            "no composite: give folders with runs on base classes of a trainer that only knows its"
            " own, such as LinearProbe, and runs of ZeroshotCLIP on new ones"
        )
    return found


def _best(by_setting: Mapping[Setting, Seeds]) -> Seeds:
    """Return the runs of the setting with the best mean accuracy; the first of equal ones."""
    return max(by_setting.values(), key=lambda seeds: fmean(r.accuracy for r in seeds.values()))


def _composite(head: Seeds, zero_shot: Seeds) -> list[Run]:
    """Return both runs of every seed that both have, with names of both."""
    one, two = (next(iter(runs.values())).setting for runs in (head, zero_shot))
    config = one.config if one.config == two.config else f"{one.config} + {two.config}"
    setting = one._replace(trainer=f"{one.trainer} + {two.trainer} {MARK}", config=config)
    return [
        replace(run, setting=setting, any_classes=True, zero_shot=False)
        for seed in sorted(head.keys() & zero_shot.keys())
        for run in (head[seed], zero_shot[seed])
    ]
