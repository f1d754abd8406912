"""Settings for all trainers at once, in each one's own keys: depth, precision, backbone.

Which keys these are is data, ``configs/protocols.yaml``, so that planning imports no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from dplq.errors import UserError, few, shown, suggest
from dplq.experiments.protocols import trainers
from dplq.experiments.requests.values import Options
from dplq.io.protocols import Entry, config_file, read_protocols
from dplq.io.validation.yaml_file import read_yaml
from dplq.training import PRECISIONS

COMMON = ("depth", "precision", "backbone")


def check_common(common: Mapping[str, str]) -> None:
    """Refuse (UserError) values that no trainer could use.

    Args:
        common: values by a name of `COMMON`.
    """
    depth = common.get("depth", "1")
    if not (depth.isascii() and depth.isdigit()) or int(depth) < 1:
        raise UserError(f"depth is {shown(depth)}: give a number of layers from 1.")
    precision = common.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise UserError(f"precision '{precision}' is unknown.{suggest(precision, PRECISIONS)}")
    if not common.get("backbone", "a"):
        raise UserError("backbone is empty: name a CLIP; `dplq models list` has some.")


def expand(common: Mapping[str, str], options: Options, trainer: str, config: str) -> Options:
    """Return options in the keys of a trainer; those that were given as keys take precedence.

    Args:
        common: values by a name of `COMMON`.
        options: config keys and values.
        trainer: a folder of ``configs/trainers``.
        config: a file in it, without its ending.

    Raises:
        UserError: a value that this trainer cannot have.
    """
    given = {key for key, _ in options}
    found = [pair for pair in _translated(common, trainer, config) if pair[0] not in given]
    return (*found, *options)


def merged(options: Options, over: Options) -> Options:
    """Return options of two places; the second takes precedence."""
    return tuple((dict(options) | dict(over)).items())


def own_options(options: Options, trainer: str) -> Options:
    """Return the options without the keys of other trainers."""
    node = f"TRAINER.{node_of(trainer)}."
    return tuple(
        (key, value)
        for key, value in options
        if key.startswith(node) or not key.startswith("TRAINER.")
    )


def check_sections(options: Options) -> None:
    """Refuse (UserError) keys of no trainer: `own_options` would leave a misspelt one out."""
    nodes = {node_of(trainer) for trainer in trainers()}
    for key, _ in options:
        section, *path = key.split(".")
        if section == "TRAINER" and not (len(path) > 1 and path[0] in nodes):
            node = path[0] if path else ""
            raise UserError(f"{key} is in no trainer's section.{suggest(node, nodes)}")


def node_of(trainer: str) -> str:
    """Return the section of a trainer's keys below ``TRAINER``."""
    return _entry(trainer).node or trainer.upper()


def has_effect(common: Mapping[str, str], trainer: str) -> bool:
    """Return whether a trainer has a key for one of these values."""
    return any(name != "depth" or _entry(trainer).depth for name in common)


def without_effect(common: Mapping[str, str], trainers: Iterable[str]) -> list[str]:
    """Return a line that names the trainers without layers to set, if any."""
    if "depth" not in common:
        return []
    names = [trainer for trainer in trainers if not has_effect({"depth": ""}, trainer)]
    line = f"depth {common['depth']} changes nothing for {few(names, 30)}: no key sets layers there"
    return [line] if names else []


def _translated(common: Mapping[str, str], trainer: str, config: str) -> Iterator[tuple[str, str]]:
    node = node_of(trainer)
    if "backbone" in common:
        yield "MODEL.BACKBONE.NAME", common["backbone"]
    if "precision" in common:
        yield f"TRAINER.{node}.PREC", common["precision"]
    if "depth" in common:
        off = _keys_at_zero(trainer, config)
        for key, more in _entry(trainer).depth.items():
            if key in off:  # prompts that this config has none of
                continue
            depth = int(common["depth"]) + more
            if depth < 1:
                raise UserError(f"depth is {common['depth']}: {trainer} needs {1 - more} or more.")
            yield f"TRAINER.{node}.{key}", str(depth)


@cache
def _keys_at_zero(trainer: str, config: str) -> frozenset[str]:
    content: Any = read_yaml(config_file(f"trainers/{trainer}", config))
    for section in ("TRAINER", node_of(trainer)):
        content = content.get(section) if isinstance(content, dict) else None
    own = content if isinstance(content, dict) else {}
    return frozenset(key for key, value in own.items() if value == 0 and value is not False)


def _entry(trainer: str) -> Entry:
    return read_protocols().get(trainer, Entry())
