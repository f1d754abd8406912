"""Names of rows: a trainer, and which of its configs where that is not the plain one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from dplq.io.protocols import CONFIGS, DEMO, PROTOCOLS, Entry, config_files, read_protocols
from dplq.results.runs import Setting

MARK = "(composite)"  # ends the trainer of a composite row


def row_names(settings: Iterable[Setting], plain: str = "") -> dict[Setting, str]:
    """Return the name of every setting, the same in all output folders.

    It follows from config and shots alone, whatever other runs there are. Of a trainer in
    ``configs/protocols.yaml`` demo and the default config are plain; ``demo_ctx`` is "ctx", and so
    is ``vit_b16_ctx`` where ``vit_b16`` is the default; what a protocol uses instead is "few_shot"
    or "transfer"; any other has its whole name. Only a config that this project does not have is
    plain where it is the trainer's only one in `settings`. Composites have names already.

    Args:
        settings: those that stand in one table.
        plain: the plain config of every trainer; empty: those above.
    """
    settings, entries = list(dict.fromkeys(settings)), read_protocols()
    configs: dict[str, set[str]] = defaultdict(set)
    for setting in settings:
        configs[setting.trainer].add(setting.config)
    names = {}
    for setting in settings:
        entry, trainer = entries.get(setting.trainer), setting.trainer
        added = "" if trainer.endswith(MARK) else _added(setting, entry or Entry(), plain)
        is_only = added == setting.config and len(configs[trainer]) == 1
        if is_only and not (entry and setting.config in _shipped(trainer)):
            added = ""
        names[setting] = f"{trainer} ({added})" if added else trainer
    return names


def _shipped(trainer: str) -> set[str]:
    """Return the configs of a trainer that the project has."""
    return set(config_files(f"trainers/{trainer}", [CONFIGS]))


def _added(setting: Setting, entry: Entry, plain: str) -> str:
    """Return what a config has beside the plain one; empty where it is that."""
    config, bases = setting.config, {plain} if plain else {DEMO, entry.default} - {""}
    if config in bases:
        return ""
    for protocol in PROTOCOLS:
        if config == entry.config(protocol, setting.shots):
            return protocol
    for base in sorted(bases, key=len, reverse=True):
        if config.startswith(f"{base}_"):
            return config.removeprefix(f"{base}_")
    return config
