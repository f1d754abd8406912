"""Names of rows: a trainer, and which of its configs where there are several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dplq.results.composite import MARK
from dplq.results.runs import Setting


def row_names(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Return the name of every setting, the same in all output folders.

    Of several configs of a trainer in one folder the shortest is the plain one; a longer one is
    named by what it adds: ``demo_ctx`` beside ``demo`` is "ctx", and so is ``vit_b16_ctx`` beside
    ``vit_b16``. All composites share one name.
    """
    settings = list(dict.fromkeys(settings))
    configs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for setting in settings:
        configs[setting.root, setting.trainer].add(setting.config)
    names = {}
    for setting in settings:
        plain = min(configs[setting.root, setting.trainer], key=lambda name: (len(name), name))
        added = setting.config.removeprefix(plain).lstrip("_")
        name = f"{setting.trainer} ({added})" if added else setting.trainer
        names[setting] = "composite" if setting.trainer.endswith(MARK) else name
    return names
