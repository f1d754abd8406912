"""Tools for the datasets on disk: list, describe, download, check.

``python -m dplq.data list | info | get | check | sheet``.
"""
