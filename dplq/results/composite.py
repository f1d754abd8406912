"""Composite rows: the best head on base classes, with zero-shot CLIP on new ones."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from dplq.errors import UserError
from dplq.results.names import MARK, row_names
from dplq.results.runs import Run, Setting

logger = logging.getLogger(__name__)

NOTE = (
    f"{MARK}: two models, paired by seed: a head that only knows its own classes on base, zero-shot"
    " CLIP on new, each the one of best mean accuracy in these very numbers; only those with the"
    " most seeds compete, over the seeds that they share. They cannot choose among all names."
)
Seeds = Mapping[int, Run]


def composites(runs: Iterable[Run], plain: str = "") -> list[Run]:
    """Return the base and new runs of a composite for every folder, dataset and shots.

    A place is left out, with a warning, where the heads (or zero-shot CLIPs) of the most seeds have
    none in common.

    Args:
        runs: what `collect` returns.
        plain: as for `row_names`.

    Raises:
        UserError: nowhere are both a head's base runs and zero-shot runs on new classes.
    """
    heads: Any = defaultdict(lambda: defaultdict(dict))
    zero_shot: Any = defaultdict(lambda: defaultdict(dict))
    runs = list(runs)
    for run in runs:
        place = (run.setting.root, run.dataset, run.setting.shots)
        if run.subset == "base" and not run.any_classes:
            heads[place][run.setting][run.seed] = run
        elif run.subset == "new" and run.zero_shot:
            zero_shot[place][run.setting][run.seed] = run
    names = row_names((run.setting for run in runs), plain)
    found = []
    for place in heads:
        if place in zero_shot:
            head, other = _best(heads[place]), _best(zero_shot[place])
            found += _composite(head, other, names) if head and other else []
    if not found:
        raise UserError(
            "no composite: give folders with runs on base classes of a trainer that only knows its"
            " own, such as LinearProbe, and runs of ZeroshotCLIP on new ones with the same seeds"
        )
    return found


def _best(by_setting: Mapping[Setting, Seeds]) -> Seeds:
    """Return the runs of the setting with the best mean accuracy; the first of equal ones.

    Settings with fewer seeds than others do not compete: a mean over fewer, or other, seeds is not
    comparable. Empty where those with the most seeds share none.
    """
    most = max(map(len, by_setting.values()))
    full = [seeds for seeds in by_setting.values() if len(seeds) == most]
    shared = set.intersection(*map(set, full))
    if not shared:
        settings = [s for s, seeds in by_setting.items() if len(seeds) == most]
        listed = " / ".join(f"{s.trainer}, {s.config}" for s in settings)
        logger.warning("no composite in %s: no seed in common: %s", settings[0].root, listed)
        return {}
    return max(full, key=lambda seeds: fmean(seeds[seed].accuracy for seed in shared))


def _composite(head: Seeds, zero_shot: Seeds, names: Mapping[Setting, str]) -> list[Run]:
    """Return both runs of every seed that both have, with names of both."""
    one, two = (next(iter(runs.values())).setting for runs in (head, zero_shot))
    config = one.config if one.config == two.config else f"{one.config} + {two.config}"
    setting = one._replace(trainer=f"{names[one]} + {names[two]} {MARK}", config=config)
    return [
        replace(run, setting=setting, any_classes=True, zero_shot=False)
        for seed in sorted(head.keys() & zero_shot.keys())
        for run in (head[seed], zero_shot[seed])
    ]
