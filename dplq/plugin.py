"""Two-line entry for host trees (CoOp, MaPLe, PromptSRC, ...).

In the tree's ``train.py``::

    import dplq.plugin
    dplq.plugin.extend_cfg(cfg)

The import registers our trainers and datasets with Dassl; `extend_cfg` adds our config keys. The
import may come before or after the host's own: names that the host registers too are the host's.
Without an installed Dassl it has to come before ``import dassl``, which is ours then.
"""

from __future__ import annotations

import importlib
from typing import Any

from dplq.host import config
from dplq.host.dassl import deferred_clash_report, ensure_dassl, report_clashes
from dplq.host.reporting import one_line_errors
from dplq.io.log import log_to_stdout

__all__ = ["extend_cfg", "register_all"]


def register_all() -> None:
    """Register every trainer and dataset of this project; what a host registers is the host's.

    User errors that nothing catches are printed as one line from now on; with `DPLQ_TRACEBACK=1`
    their traceback is shown.
    """
    one_line_errors()
    ensure_dassl()
    with deferred_clash_report():
        importlib.import_module("dplq.datasets")
        importlib.import_module("dplq.trainers")


def extend_cfg(cfg: Any) -> None:
    """Add this project's keys to a Dassl config; what the host has defined already stays.

    Log lines of this project are printed from now on, so that the tree's log file has them.

    Args:
        cfg: yacs `CfgNode` from `get_cfg_default()`.
    """
    log_to_stdout()
    config.extend_cfg(cfg)
    report_clashes()


register_all()
