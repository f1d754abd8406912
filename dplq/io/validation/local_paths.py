"""Paths on this machine among the settings of a run, which are nobody else's matter."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

# Always a path on this machine, also where it is relative.
PATH_KEYS = frozenset(
    (
        *("OUTPUT_DIR", "RESUME", "DATASET.ROOT", "DATASET.SPLIT_FILE"),
        *("MODEL.INIT_WEIGHTS", "DOMAIN.WEIGHTS"),
    )
)
LOCAL = ("/", "~", "./", "../", "\\")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # "T: tumour" is text


def without_folders(
    content: Mapping[str, Any], where: str = "", kept: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return settings with file names in place of local paths, and the keys that changed.

    Args:
        content: JSON-able.
        where: key of `content`, with a dot at its end.
        kept: keys whose values are text, whatever it looks like.
    """
    cleaned, changed = {}, []
    for key, value in content.items():
        if f"{where}{key}" in kept:
            cleaned[key] = value
            continue
        if isinstance(value, Mapping):
            cleaned[key], inner = without_folders(value, f"{where}{key}.", kept)
            changed += inner
            continue
        cleaned[key] = _cleaned(value, f"{where}{key}")
        if cleaned[key] != value:
            changed.append(f"{where}{key}")
    return cleaned, changed


def _cleaned(value: Any, key: str) -> Any:
    if isinstance(value, (list, tuple)):
        parts = [
            without_folders(part)[0] if isinstance(part, Mapping) else _cleaned(part, key)
            for part in value
        ]
        return parts
    if not isinstance(value, str) or ("://" in value and not value.startswith("file:")):
        return value
    if key in PATH_KEYS:
        return _name(value)
    before, colon, path = value.rpartition(":")  # NAME:PATH, local-dir:PATH
    is_on_drive = DRIVE.match(value) is not None
    if is_on_drive:
        before, colon, path = "", "", value
    exists = os.sep in path and os.path.exists(path)
    is_local = path.startswith(LOCAL) or is_on_drive or exists
    return before + colon + _name(path) if is_local or before == "local-dir" else value


def _name(path: str) -> str:
    """Return a path's last part, in the notation of either system."""
    return PurePath(PureWindowsPath(path).name).name if path else path
