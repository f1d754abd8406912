"""``KEY VALUE`` pairs after the images of ``dplq predict``: how tables and images are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from dplq.datasets._engine.tables.columns import Columns
from dplq.images.settings import ReadSettings, read_settings

SECTIONS = ("INPUT.", "DATASET.")  # in a config


class Options(NamedTuple):
    """What the pairs say.

    Attributes:
        columns: of tables.
        reading: settings of the image reader.
    """

    columns: Columns
    reading: ReadSettings


def changes(own: ReadSettings, now: ReadSettings) -> dict[str, Any]:
    """Return the settings that differ from a model's own, by key, as JSON has them."""
    values = {field.name: getattr(now, field.name) for field in fields(now)}
    return {
        key.upper(): list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value != getattr(own, key)
    }


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the images, and the pairs after them: from the first key on that is no file."""
    for at, word in enumerate(words):
        if word.startswith(SECTIONS) and not os.path.lexists(word):
            return list(words[:at]), list(words[at:])
    return list(words), []


def parse_options(pairs: list[str], reading: ReadSettings) -> Options:
    """Return what pairs say.

    Args:
        pairs: KEY VALUE ..., keys as in a config.
        reading: settings of keys that are not given: the model's.

    Raises:
        UserError: an odd number of words, another key, or a value that a key cannot have.
    """
    if not pairs:
        return Options(Columns(), reading)
    from yacs.config import CfgNode

    from dplq.host.config import merge_options

    given = {field.name.upper(): getattr(reading, field.name) for field in fields(reading)}
    columns = {field.name.upper(): field.default for field in fields(Columns)}
    cfg: Any = CfgNode({"INPUT": given, "DATASET": {"COLUMNS": columns}})
    merge_options(cfg, pairs)
    named = {name.lower(): value for name, value in cfg.DATASET.COLUMNS.items()}
    return Options(Columns(**named), read_settings(cfg.INPUT))
