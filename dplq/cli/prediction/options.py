"""``KEY VALUE`` pairs after the images of ``dplq predict``: how tables and images are read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from dplq.datasets._engine.tables.columns import Columns
from dplq.errors import UserError, few
from dplq.images.settings import ReadSettings, read_settings
from dplq.io.nodes import flatten

KEY = re.compile(r"(?:INPUT|DATASET)(?:\.[A-Z_]+)+")


class Options(NamedTuple):
    """What the pairs say.

    Attributes:
        columns: of tables.
        reading: settings of the image reader.
    """

    columns: Columns
    reading: ReadSettings


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the images, and the pairs after them: from the first key on that is no file.

    Raises:
        UserError: the pairs are none, or nothing is before them.
    """
    is_key = (KEY.fullmatch(word) and not os.path.lexists(word) for word in words)
    at = next((index for index, found in enumerate(is_key) if found), len(words))
    images, pairs = list(words[:at]), list(words[at:])
    if pairs and (not images or len(pairs) % 2):
        raise UserError("IMAGES come first, then KEY VALUE pairs, in which each key has a value.")
    return images, pairs


def parse_options(pairs: list[str], reading: ReadSettings) -> Options:
    """Return what pairs say.

    Args:
        pairs: KEY VALUE ..., keys as in a config.
        reading: settings of keys that are not given: the model's.

    Raises:
        UserError: another key, or a value that a key cannot have.
    """
    if not pairs:
        return Options(Columns(), reading)
    from yacs.config import CfgNode

    from dplq.host.config import merge_options

    given = {field.name.upper(): getattr(reading, field.name) for field in fields(reading)}
    columns = {field.name.upper(): field.default for field in fields(Columns)}
    cfg: Any = CfgNode({"INPUT": given, "DATASET": {"COLUMNS": columns}})
    known = [key for key, _ in flatten(cfg)]
    for key in pairs[::2]:
        if key not in known:
            raise UserError(
                f"{key} cannot be set here; how tables and images are read is set by "
                f"{few(known, len(known))}."
            )
    merge_options(cfg, pairs)
    named = {name.lower(): value for name, value in cfg.DATASET.COLUMNS.items()}
    return Options(Columns(**named), read_settings(cfg.INPUT))
