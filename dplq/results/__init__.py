"""Tables of finished runs: ``python -m dplq.results OUT...``, or the functions here.

`runs` finds and parses the runs, `summary` averages over seeds, `tables`, `grids` and `curve`
present the numbers, `rendering` formats a table as text. Neither torch nor Dassl is imported.
"""

from dplq.results.curve import draw_curve
from dplq.results.grids import shots_table, transfer_table
from dplq.results.rendering import FORMATS, Table
from dplq.results.runs import SUBSETS, Run, Setting, collect
from dplq.results.summary import Row, Stat, summarise
from dplq.results.tables import accuracy_table, render

__all__ = [
    "FORMATS",
    "SUBSETS",
    "Row",
    "Run",
    "Setting",
    "Stat",
    "Table",
    "accuracy_table",
    "collect",
    "draw_curve",
    "render",
    "shots_table",
    "summarise",
    "transfer_table",
]
