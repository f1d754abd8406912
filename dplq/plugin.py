"""The two-line entry for host trees (CoOp, MaPLe, PromptSRC, ...)::

    import dplq.plugin
    dplq.plugin.extend_cfg(cfg)

The import registers our trainers and datasets with Dassl; `extend_cfg` adds our config keys.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from dplq.config import extend_cfg
from dplq.dassl_compat import ensure_dassl

__all__ = ["extend_cfg", "register_all"]
ROOMS = ("datasets", "trainers")


def room(name: str) -> str:
    """The module name under which our folder `trainers/` or `datasets/` is imported.

    In a source tree that is run from its root it is the short name; everywhere else (installed,
    or a host tree whose own `trainers` comes first on the path) it is ``dplq.<name>``.
    """
    ours = Path(__file__).resolve().parent.parent / name / "__init__.py"
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin and Path(spec.origin).resolve() == ours:
        return name
    return f"dplq.{name}"


def register_all() -> None:
    """Register every trainer and dataset of this project; what a host has registered stays."""
    ensure_dassl()
    for name in ROOMS:
        importlib.import_module(room(name))


register_all()
