"""The two-line entry for host trees (CoOp, MaPLe, PromptSRC, ...)::

    import dplq.plugin
    dplq.plugin.extend_cfg(cfg)

The import registers our trainers and datasets with Dassl; `extend_cfg` adds our config keys. The
import may come before or after the host's own: names that the host registers too are the host's.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from dplq import config
from dplq.dassl_compat import ensure_dassl, one_report, report_clashes

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
    """Register every trainer and dataset of this project; what a host registers is the host's."""
    ensure_dassl()
    with one_report():
        for name in ROOMS:
            importlib.import_module(room(name))


def extend_cfg(cfg: Any) -> None:
    """Add this project's keys to a Dassl config; what the host has defined already stays.

    Args:
        cfg: yacs `CfgNode` from `get_cfg_default()`.
    """
    config.extend_cfg(cfg)
    report_clashes()


register_all()
