"""Tables of images: `labels.csv` and its relatives."""

from .columns import Columns
from .table import SUFFIXES, Table, find_table, is_table, read_table, table_warnings

__all__ = ["SUFFIXES", "Columns", "Table", "find_table", "is_table", "read_table", "table_warnings"]
