"""Configs as nested nodes: their leaves by dotted key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a config as (dotted key, value)."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def set_key(cfg: Any, key: str, value: Any) -> None:
    """Set one dotted key, whose sections exist."""
    *sections, leaf = key.split(".")
    for section in sections:
        cfg = cfg[section]
    cfg[leaf] = value
