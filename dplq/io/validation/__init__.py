"""Validation of what comes from outside: files, values, paths."""
