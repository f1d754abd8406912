"""Tables of finished runs: ``dplq results OUT...``, or the functions here.

`runs` finds and parses the runs, `summary` averages over seeds, `tables`, `grids` and `curve`
present the numbers, `frames` has the runs as a pandas table with filters and any grouping,
`rendering` formats a table as text. Neither torch nor Dassl is imported, and the modules only on
first use: the help text needs none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from dplq.results.curve import draw_curve as draw_curve
    from dplq.results.frames import frame as frame
    from dplq.results.frames import grouped_table as grouped_table
    from dplq.results.frames import select as select
    from dplq.results.grids import shots_table as shots_table
    from dplq.results.grids import transfer_table as transfer_table
    from dplq.results.rendering import Table as Table
    from dplq.results.runs import SUBSETS as SUBSETS
    from dplq.results.runs import Run as Run
    from dplq.results.runs import Setting as Setting
    from dplq.results.runs import collect as collect
    from dplq.results.summary import Row as Row
    from dplq.results.summary import Stat as Stat
    from dplq.results.summary import summarise as summarise
    from dplq.results.tables import accuracy_table as accuracy_table
    from dplq.results.tables import render as render

FORMATS = ("simple", "github", "latex", "html", "csv")
ACCURACY = "accuracy"
# What a table can show, and its name there; all are better the larger they are.
METRICS = {
    ACCURACY: "Top-1 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro-F1",
    "macro_auroc": "Macro AUROC",
    "macro_average_precision": "Macro average precision",
}
_NAMES = {  # module -> public names that it defines
    "curve": ("draw_curve",),
    "frames": ("frame", "grouped_table", "select"),
    "grids": ("shots_table", "transfer_table"),
    "rendering": ("Table",),
    "runs": ("SUBSETS", "Run", "Setting", "collect"),
    "summary": ("Row", "Stat", "summarise"),
    "tables": ("accuracy_table", "render"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["ACCURACY", "FORMATS", "METRICS", *_MODULES]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import a public name on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
