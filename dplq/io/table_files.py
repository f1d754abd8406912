"""Endings of files that hold tables."""

TABLES = (".csv", ".tsv")
SPREADSHEETS = (".xlsx", ".xls", ".ods")  # not read: they have to be saved as CSV
