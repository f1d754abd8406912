"""Tracking of a run: values of each epoch and results, for tables and tracking services."""
