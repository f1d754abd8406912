"""Names of rows: a trainer, and which of its configs where there are several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dplq.results.runs import Setting


def row_names(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Return the name of every setting, the same in all output folders.

    Of several configs of a trainer in one folder the shortest is the plain one; a longer one is
    named by what it adds: ``demo_ctx`` beside ``demo`` is "ctx", and so is ``vit_b16_ctx`` beside
    ``vit_b16``.
    """
    settings = list(dict.fromkeys(settings))
    configs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for setting in settings:
        configs[setting.root, setting.trainer].add(setting.config)
    names = {}
    for setting in settings:
        plain = min(configs[setting.root, setting.trainer], key=lambda name: (len(name), name))
        added = setting.config.removeprefix(plain).lstrip("_")
        names[setting] = f"{setting.trainer} ({added})" if added else setting.trainer
    return names
