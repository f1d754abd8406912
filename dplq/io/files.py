"""Where files that can be made again are kept, outside the data folders."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """``$DPLQ_CACHE``, or ``~/.cache/dplq`` where it is not set; it need not exist yet."""
    chosen = os.environ.get("DPLQ_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "dplq"
