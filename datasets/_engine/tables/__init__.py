"""Tables of images: `labels.csv` and its relatives."""

from .columns import Columns
from .table import Table, find_table, is_table, read_table, table_warnings

__all__ = ["Columns", "Table", "find_table", "is_table", "read_table", "table_warnings"]
