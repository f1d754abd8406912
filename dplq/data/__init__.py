"""The datasets on disk: which there are, where they come from, whether yours is whole.

``python -m dplq.data list | info | get | check | sheet``.
"""
