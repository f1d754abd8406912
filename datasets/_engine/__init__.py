"""Shared code of the dataset declarations: class folders, splits, layouts, storage."""
